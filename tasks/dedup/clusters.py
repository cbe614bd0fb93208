"""Finds the duplicates of a corpus from its signature files alone.

Documents are numbered through all shards: test first, then val, then train, each split in the order of its
parts. Of duplicates the first one is kept, so what is held out stays and its copies leave the training text.

1. Exact: documents with equal hashes; all but the first are dropped, and take no part in what follows.
2. Candidates: documents whose signatures agree in a whole bucket, each paired with the one before it and with
   the first one in its bucket.
3. Edges: candidates whose signatures agree in a share of at least `min_similarity` of all positions, which
   estimates their Jaccard similarity. Clusters are the connected components.
4. In a cluster the first document is kept and drops all that are as similar to it; of the rest the first is
   kept, and so on. So every dropped document has a kept one that is similar to it: similarity does not
   drift along a chain. With `min_similarity` 0 that leaves one document of each component, as datatrove does.
"""

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from storage.errors import CorruptFileError, InputError
from storage.formats.minhash import MinHash
from storage.formats.signatures import read_layout, read_signatures

Numbers = npt.NDArray[np.int64]
ScalarT = TypeVar("ScalarT", bound=np.generic)

CHUNK = 32_768
"""Pairs compared at once: 60 MB of 14 x 8 signatures."""


@dataclass(frozen=True)
class Duplicates:
    """The documents to drop, by rising number."""

    documents: Numbers
    kept: Numbers
    """The kept document that stands for each dropped one; always a smaller number."""
    is_near: npt.NDArray[np.bool_]
    """Near duplicate; the others are exact ones."""
    similarity: npt.NDArray[np.float64]
    """Share of equal signature positions of a near duplicate and its kept document; 1 for exact ones."""


class CorpusSignatures:
    """All signatures of a corpus, spread over scratch files so that a step loads only what it needs.

    In memory: 16 bytes a document (exact hashes). On disk: the signatures, and one file per bucket with a
    64-bit hash of that bucket's positions.
    """

    def __init__(self, paths: Sequence[Path], scratch: Path) -> None:
        scratch.mkdir(exist_ok=True)
        self.layout, self.rows = _common_layout(paths)
        self._scratch = scratch
        self._read(paths)
        self._signatures = np.empty((0, self.layout.hashes), np.uint64)
        if self.has_minhash.any():
            shape = (len(self.has_minhash), self.layout.hashes)
            self._signatures = np.memmap(scratch / "signatures", np.uint64, "r", shape=shape)

    def bucket(self, index: int) -> npt.NDArray[np.uint64]:
        """Return a hash of the positions of one bucket for every document; meaningless without a signature.

        Two different buckets of 2e8 documents collide with a chance of 0.1 %, and then fail verification.
        """
        return np.fromfile(self._scratch / _bucket_name(index), np.uint64)

    def equal_positions(self, first: Numbers, second: Numbers) -> Numbers:
        """Return in how many positions the signatures of each pair of documents agree."""
        equal = np.empty(len(first), np.int64)
        for start in range(0, len(first), CHUNK):
            part = slice(start, start + CHUNK)
            equal[part] = (self._signatures[first[part]] == self._signatures[second[part]]).sum(axis=1)
        return equal

    def _read(self, paths: Sequence[Path]) -> None:
        exact, has_minhash = [np.empty((0, 2), np.uint64)], [np.empty(0, np.bool_)]
        names = ["signatures", *(_bucket_name(index) for index in range(self.layout.num_buckets))]
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context((self._scratch / name).open("wb")) for name in names]
            for path in paths:
                for rows in read_signatures(path):
                    exact.append(rows.exact.copy())
                    has_minhash.append(rows.has_minhash)
                    signatures = np.zeros((len(rows.exact), self.layout.hashes), np.uint64)
                    signatures[rows.has_minhash] = rows.minhash
                    buckets = np.split(signatures, self.layout.num_buckets, axis=1)
                    for file, values in zip(files, (signatures, *map(_mixed, buckets)), strict=True):
                        file.write(values.tobytes())
        self.exact = np.concatenate(exact)
        self.has_minhash = np.concatenate(has_minhash)


def find_duplicates(signatures: CorpusSignatures, *, near: bool, min_similarity: float) -> Duplicates:
    """Return which documents to drop, and the kept document that stands for each."""
    kept = _first_of_equals(signatures.exact)
    is_near = np.zeros(len(kept), np.bool_)
    similarity = np.ones(len(kept))
    if near:
        needed = math.ceil(min_similarity * signatures.layout.hashes - 1e-9)
        edges = _edges(signatures, np.flatnonzero((kept == np.arange(len(kept))) & signatures.has_minhash), needed)
        dropped, leaders, equal = _dropped_in_clusters(signatures, *_components(edges), needed)
        kept[dropped] = leaders
        is_near[dropped] = True
        similarity[dropped] = equal / signatures.layout.hashes
        kept = kept[kept]  # an exact duplicate of a near duplicate
    documents = np.flatnonzero(kept != np.arange(len(kept)))
    return Duplicates(documents, kept[documents], is_near[documents], similarity[documents])


def _bucket_name(index: int) -> str:
    return f"bucket-{index:03d}"


def _common_layout(paths: Sequence[Path]) -> tuple[MinHash, list[int]]:
    layouts = [read_layout(path) for path in paths]
    for path, (layout, _) in zip(paths, layouts, strict=True):
        if layout != layouts[0][0]:
            raise CorruptFileError(
                f"all signatures of a corpus must have one layout, but {paths[0]} has {layouts[0][0]!r} and "
                f"{path} has {layout!r}; rebuild them with `pile run RECIPE --force filter`"
            )
    return (layouts[0][0] if layouts else MinHash()), [rows for _, rows in layouts]


def _first_of_equals(exact: npt.NDArray[np.uint64]) -> Numbers:
    """Return for each document the first one with the same hash, itself if there is none before it."""
    order = np.lexsort((exact[:, 1], exact[:, 0]))  # stable: equal hashes stay in the order of the documents
    starts_group = np.ones(len(order), np.bool_)
    starts_group[1:] = (exact[order[1:]] != exact[order[:-1]]).any(axis=1)
    first = np.empty(len(order), np.int64)
    first[order] = order[_last_true(starts_group)]
    return first


def _edges(signatures: CorpusSignatures, documents: Numbers, needed: int) -> npt.NDArray[np.uint64]:
    """Return the verified candidate pairs, each as two 32-bit numbers in one, sorted."""
    if len(signatures.exact) > 1 << 32:
        raise InputError(
            f"near duplicates can be found among at most 2^32 documents, there are {len(signatures.exact)}; "
            f"set dedup.near_duplicates=false"
        )
    pairs = np.empty(0, np.uint64)
    for index in range(signatures.layout.num_buckets):
        found = _candidates(signatures.bucket(index)[documents], documents)
        pairs = _sorted_unique(np.concatenate((pairs, found)))
    return pairs[signatures.equal_positions(*_unpacked(pairs)) >= needed]


def _candidates(bucket: npt.NDArray[np.uint64], documents: Numbers) -> npt.NDArray[np.uint64]:
    order = np.argsort(bucket, kind="stable")
    starts_group = np.ones(len(order), np.bool_)
    starts_group[1:] = bucket[order[1:]] != bucket[order[:-1]]
    later = np.flatnonzero(~starts_group)
    seconds = documents[order[later]]
    neighbours = _packed(documents[order[later - 1]], seconds)
    firsts = _packed(documents[order[_last_true(starts_group)[later]]], seconds)
    return np.concatenate((neighbours, firsts))


def _components(edges: npt.NDArray[np.uint64]) -> tuple[Numbers, Numbers]:
    """Return the documents that have an edge, sorted by cluster and number, and the cluster of each."""
    first, second = _unpacked(edges)
    documents = _sorted_unique(np.concatenate((first, second)))
    rows, columns = np.searchsorted(documents, first), np.searchsorted(documents, second)
    graph = coo_matrix((np.ones(len(rows), np.bool_), (rows, columns)), shape=(len(documents), len(documents)))
    _, cluster = connected_components(graph, directed=False)
    order = np.lexsort((documents, cluster))
    return documents[order], cluster[order].astype(np.int64)


def _dropped_in_clusters(
    signatures: CorpusSignatures, documents: Numbers, cluster: Numbers, needed: int
) -> tuple[Numbers, Numbers, Numbers]:
    """Return the dropped documents, the kept one that each resembles, and in how many positions they agree.

    A round keeps the first of what is left of each cluster; there are as many rounds as kept documents in the
    worst cluster, one for nearly all of them.
    """
    rounds = [(np.empty(0, np.int64),) * 3]
    while len(documents):
        starts_cluster = np.ones(len(cluster), np.bool_)
        starts_cluster[1:] = cluster[1:] != cluster[:-1]
        leaders = documents[_last_true(starts_cluster)]
        equal = signatures.equal_positions(leaders, documents)
        close = equal >= needed
        drop = close & ~starts_cluster
        rounds.append((documents[drop], leaders[drop], equal[drop]))
        documents, cluster = documents[~close], cluster[~close]
    dropped, leaders, equal = (np.concatenate(column) for column in zip(*rounds, strict=True))
    return dropped, leaders, equal


def _last_true(mask: npt.NDArray[np.bool_]) -> Numbers:
    """Return for each place the last place up to it where `mask` is true."""
    return np.maximum.accumulate(np.where(mask, np.arange(len(mask)), 0))


def _packed(first: Numbers, second: Numbers) -> npt.NDArray[np.uint64]:
    return (first.astype(np.uint64) << np.uint64(32)) | second.astype(np.uint64)


def _unpacked(pairs: npt.NDArray[np.uint64]) -> tuple[Numbers, Numbers]:
    return (pairs >> np.uint64(32)).astype(np.int64), (pairs & np.uint64(0xFFFFFFFF)).astype(np.int64)


def _sorted_unique(values: npt.NDArray[ScalarT]) -> npt.NDArray[ScalarT]:
    # numpy.unique goes through a hash table and takes ten times as long.
    values = np.sort(values)
    is_first = np.ones(len(values), np.bool_)
    is_first[1:] = values[1:] != values[:-1]
    return values[is_first]


def _mixed(columns: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return one 64-bit hash per row."""
    mixed = np.zeros(len(columns), np.uint64)
    for column in columns.T:
        mixed ^= column
        mixed *= np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return mixed
