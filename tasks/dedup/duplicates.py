"""Decides which documents go, from the sketches of all shards and the shingles of those that may be alike.

Documents are taken in their order: what earlier artifacts kept, then test, val and train; within each of these the
first of the corpus first, or the one of most shingles. A document goes if one that comes before it and is kept

1. has the same words (exact), or
2. shares at least `min_similarity` of both documents' shingles (near), or
3. has at least `min_containment` of its shingles (contained), if that is asked, or
4. is held out and has at least `held_out_containment` of its own shingles in it (holds held-out text), or
5. is training text of an earlier artifact in which so much of it stands, and it is held out (found in train).

So a document goes only for its likeness to a kept one, and what is decided about it follows from those before it
alone: documents that are added behind all others change nothing, but for held-out phrases (`_phrases`), which are
decided about last. Compared are documents that share a bucket, and those of which the index of held-out text says
so.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from storage.errors import InputError
from tasks.core.compiling import Hashes, Hashes32
from tasks.dedup.config import DedupConfig
from tasks.dedup.deciding import KEPT, decide
from tasks.dedup.links import BucketLinks, Mask, Numbers, first_equals, link_buckets

EXACT = 5
"""A verdict beside those of the kernel."""
NEVER = 2.0
"""As a share of shingles."""


@dataclass(frozen=True)
class Documents:
    """All documents of a corpus and of those it is compared with, numbered through; arrays of one row each."""

    exact: Hashes
    """Shape (documents, 2)."""
    sizes: Hashes32
    """Shingles."""
    near: Mask
    """Whether near duplicates are looked for."""
    held_out: Mask
    earlier: int
    """How many at the beginning are those of earlier artifacts, which stay."""
    order: Numbers
    """The numbers of those that are there, in the order in which they are decided about; earlier ones first."""
    hits: Numbers
    """Training documents that hold a held-out one, that one, and how many shingles they share; shape (hits, 3)."""
    pairs: Numbers
    """Others that are compared, whatever their buckets; shape (pairs, 2)."""
    bucket: Callable[[int], Hashes]
    """Returns a hash of each document."""
    shingles: Callable[[Numbers], Iterator[tuple[Numbers, Sequence[Hashes32]]]]
    """Yields the shingles of documents of ascending numbers, in lots."""


@dataclass(frozen=True)
class Duplicates:
    """The documents that go."""

    documents: Numbers
    """By rising number."""
    twins: Numbers
    """The document that stands for each."""
    verdicts: npt.NDArray[np.uint8]
    shares: npt.NDArray[np.float64]
    """Of shingles, that decided; 1 for exact duplicates."""
    compared: int
    """Documents that were compared with others."""
    cut: int
    """Of these the ones with more kept documents in a bucket than any is compared with."""
    similarities: Numbers
    """How many of the pairs compared have 0 % of their shingles in common, 1 % and so on; shape (101,)."""


def find_duplicates(config: DedupConfig, documents: Documents, scratch: Path, threads: int) -> Duplicates:
    """Return which documents go, and why. Raises: InputError for more documents than 32 bits can number."""
    if len(documents.order) >= 1 << 32:
        raise InputError(
            f"duplicates can be found among less than 2^32 documents, there are {len(documents.order)}; "
            f"split the corpus and deduplicate one half with dedup.against set to the other"
        )
    order, phrases = documents.order, _phrases(config, documents)
    half, other = (np.ascontiguousarray(documents.exact[:, column]) for column in (0, 1))
    first = first_equals(half, other, order)
    if len(phrases):
        # Of equal held-out documents only the first need be among the hits.
        last = np.isin(order, phrases) | (np.isin(order[first], phrases) & documents.held_out[order])
        order = np.concatenate((order[~last], order[last]))
        first = first_equals(half, other, order)
    repeats = first != np.arange(len(order), dtype=np.uint32)
    equal, of = order[repeats], order[first[repeats]]
    singles = order[~repeats]
    del half, other, first, repeats, order  # as large as what follows
    return _together(documents, equal, of, _near_duplicates(config, documents, singles, scratch, threads))


def _phrases(config: DedupConfig, documents: Documents) -> Numbers:
    """Return held-out documents of few shingles that stand in the midst of a training document each.

    They are decided about last, so that they go for it if it is kept, and it never goes for them.
    """
    there = np.zeros(len(documents.sizes), np.bool_)
    there[documents.order] = True
    holders, held, common = documents.hits.T
    sizes = documents.sizes[holders].astype(np.int64), documents.sizes[held].astype(np.int64)
    unlike = common < config.min_similarity * (sizes[0] + sizes[1] - common)
    is_phrase = (sizes[1] < config.held_out_min_shingles) & (held >= documents.earlier)
    return np.unique(held[unlike & is_phrase & there[holders] & there[held]])


def _near_duplicates(
    config: DedupConfig, documents: Documents, singles: Numbers, scratch: Path, threads: int
) -> Duplicates:
    """Return which of documents in their order, no two of them equal, resemble or hold others; in that order."""
    pairs = _pairs(documents, singles)
    also = np.zeros(len(singles), np.bool_)
    also[pairs.ravel()] = True
    near = documents.near[singles] & config.near_duplicates
    links = link_buckets(documents.bucket, config.bands.buckets, singles, near, also, scratch, threads)
    numbers = singles[links.documents]
    starts, shingles = _gathered(documents, numbers, scratch / "shingles")
    more_starts, more = _more(links, pairs)
    twins = np.zeros(len(numbers), np.uint32)
    shares = np.zeros(len(numbers), np.float32)
    verdicts = np.zeros(len(numbers), np.uint8)
    similarities = np.zeros(101, np.int64)
    cut = decide(
        links.table,
        starts,
        documents.sizes[numbers],
        shingles,
        more_starts,
        more,
        documents.held_out[numbers].astype(np.uint8),
        documents.near[numbers].astype(np.uint8),
        int((numbers < documents.earlier).sum()),
        config.min_similarity if config.near_duplicates else NEVER,
        config.min_containment or NEVER,
        config.held_out_containment,
        twins,
        shares,
        verdicts,
        similarities,
    )
    gone = verdicts != KEPT
    return Duplicates(
        numbers[gone],
        numbers[twins[gone]],
        verdicts[gone],
        shares[gone].astype(np.float64),
        len(numbers),
        int(cut),
        similarities,
    )


def _pairs(documents: Documents, singles: Numbers) -> Numbers:
    """Return the pairs that are compared whatever their buckets, as places in the order, the earlier one first.

    Only of documents that are there and have shingles.
    """
    pairs = np.concatenate((documents.hits[:, :2], documents.pairs))
    numbers = np.unique(pairs)
    is_paired = np.zeros(len(documents.sizes), np.bool_)
    is_paired[numbers[documents.sizes[numbers] > 0]] = True
    places = np.flatnonzero(is_paired[singles])  # few, so that nothing is held of every document but a byte
    place = np.full(len(numbers), -1, np.int64)
    place[np.searchsorted(numbers, singles[places])] = places
    pairs = place[np.searchsorted(numbers, pairs)]
    found: Numbers = np.sort(pairs[(pairs >= 0).all(axis=1) & (pairs[:, 0] != pairs[:, 1])], axis=1)
    return found


def _more(links: BucketLinks, pairs: Numbers) -> tuple[Numbers, Hashes32]:
    """Return pairs (earlier, later) by column of the later one: where those of each begin, and the earlier."""
    columns = np.searchsorted(links.documents, pairs)
    columns = columns[np.argsort(columns[:, 1], kind="stable")]
    starts = np.zeros(len(links.documents) + 1, np.int64)
    np.add.at(starts, columns[:, 1] + 1, 1)
    np.cumsum(starts, out=starts)
    return starts, np.ascontiguousarray(columns[:, 0], dtype=np.uint32)


def _gathered(documents: Documents, numbers: Numbers, path: Path) -> tuple[Numbers, Hashes32]:
    """Write the shingles of documents into one file; return where those of each begin, and the mapped file."""
    order = np.argsort(numbers, kind="stable")
    starts = np.empty(len(numbers), np.int64)
    size, at = 0, 0
    with path.open("wb") as file:
        for found, lots in documents.shingles(numbers[order]):
            lengths = np.array([len(lot) for lot in lots], np.int64)
            starts[order[at : at + len(found)]] = size + np.cumsum(lengths) - lengths
            at += len(found)
            size += int(lengths.sum())
            for lot in lots:
                file.write(lot.tobytes())
    if not size:
        return starts, np.empty(0, np.uint32)
    return starts, np.asarray(np.memmap(path, np.uint32, "r"))


def _together(documents: Documents, equal: Numbers, first: Numbers, near: Duplicates) -> Duplicates:
    """Return all that go: of documents equal to `first` ones it is said what is said of those, if they go too."""
    twins, verdicts, shares = first.copy(), np.full(len(equal), EXACT, np.uint8), np.ones(len(equal))
    by_number = np.argsort(near.documents)
    if len(by_number):
        place = np.searchsorted(near.documents, first, sorter=by_number)
        place = by_number[np.minimum(place, len(by_number) - 1)]
        gone = near.documents[place] == first
        twins[gone], verdicts[gone] = near.twins[place[gone]], near.verdicts[place[gone]]
        shares[gone] = near.shares[place[gone]]
    numbers = np.concatenate((equal, near.documents))
    order = np.argsort(numbers)
    order = order[numbers[order] >= documents.earlier]
    return replace(
        near,
        documents=numbers[order],
        twins=np.concatenate((twins, near.twins))[order],
        verdicts=np.concatenate((verdicts, near.verdicts))[order],
        shares=np.concatenate((shares, near.shares))[order],
    )
