"""What the workers find out about each shard of shingles, before anybody looks at all of them together."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from storage.artifacts.records import Part, StoredFile
from storage.artifacts.store import Artifact
from storage.artifacts.writer import ArtifactWriter
from storage.formats.shingles import Hashes32, ShingleRows, read_shingles
from tasks.core.compiling import Hashes
from tasks.dedup.config import DedupConfig
from tasks.dedup.indexes import SMALLEST, HeldOutIndex, ShingleIndex
from tasks.dedup.signatures import Signer

ROW = np.dtype([("exact", "<u8", 2), ("size", "<u4"), ("near", "?")])
"""What is kept of a document: exact hash, number of shingles, whether near duplicates are looked for."""

HIT = np.dtype([("row", "<u4"), ("held_out", "<u4"), ("common", "<u4")])
"""A document that holds a held-out one, its number in the index, and how many shingles they share."""


@dataclass(frozen=True)
class ShingleShard:
    """A shard of shingles of this corpus or of an earlier one."""

    corpus: Artifact
    file: StoredFile
    name: str
    """Of its sketch: the part's own, or one with the key of the earlier artifact."""
    may_hold: bool
    """Whether it is training text, in which held-out text is looked for."""


class Sketch:
    """The arrays of a sketch, one behind the other in its file, read when they are asked for.

    They are not mapped: each map keeps its file open, of as many shards as there are, and most systems allow a
    process a thousand files.
    """

    def __init__(self, writer: ArtifactWriter, part: Part, names: Sequence[str]) -> None:
        (file,) = part.files
        self._path = writer.open(file)
        self._arrays: dict[str, tuple[int, tuple[int, ...], np.dtype[Any]]] = {}
        with self._path.open("rb") as arrays:
            for name in names:
                np.lib.format.read_magic(arrays)
                shape, _, dtype = np.lib.format.read_array_header_1_0(arrays)
                self._arrays[name] = begin, _, _ = arrays.tell(), shape, dtype
                arrays.seek(begin + math.prod(shape) * dtype.itemsize)

    @property
    def rows(self) -> npt.NDArray[np.void]:
        """ROW of each document."""
        return self._read("rows")

    @property
    def hits(self) -> npt.NDArray[np.void]:
        """HIT by rising row."""
        return self._read("hits")

    @property
    def smallest(self) -> Hashes32:
        """The smallest shingles of each document, shape (documents, SMALLEST)."""
        return self._read("smallest")

    def bucket(self, index: int) -> Hashes:
        """Return the hash of one bucket for each document."""
        begin, (_, documents), dtype = self._arrays["buckets"]
        return np.fromfile(self._path, dtype, documents, offset=begin + index * documents * dtype.itemsize)

    def _read(self, name: str) -> npt.NDArray[Any]:
        begin, shape, dtype = self._arrays[name]
        return np.fromfile(self._path, dtype, math.prod(shape), offset=begin).reshape(shape)


def array_names(config: DedupConfig) -> tuple[str, ...]:
    """Return which arrays a sketch has, in their order."""
    return ("rows", "hits", *(("smallest",) if config.min_containment is not None else ()), "buckets")


@dataclass(frozen=True)
class SketchShard:
    """Signs a shard and looks for held-out text in it; commits what it finds as a part."""

    config: DedupConfig
    writer: ArtifactWriter
    index: tuple[StoredFile, ...]
    """The files of the HeldOutIndex."""

    def __call__(self, shard: ShingleShard) -> None:
        """Do one shard."""
        signer = Signer(self.config.bands, self.config.seed)
        index = HeldOutIndex(_mapped(self.writer, self.index)) if shard.may_hold else None
        arrays: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in array_names(self.config)}
        begin = 0
        for group in read_shingles(shard.corpus.open(shard.file)):
            rows = _rows(group)
            arrays["rows"].append(rows)
            arrays["hits"].append(np.array([] if index is None else self._hits(index, group, begin), HIT))
            if "smallest" in arrays:
                arrays["smallest"].append(_smallest(group))
            arrays["buckets"].append(signer.buckets(group, rows["near"] & self.config.near_duplicates))
            begin += len(group)
        path = self.writer.scratch() / f"{shard.name}.npy"
        with path.open("wb") as file:
            for name, found in arrays.items():
                np.save(file, np.concatenate(found, axis=1 if name == "buckets" else 0))
        self.writer.commit(shard.name, {"sketch": path})

    def _hits(self, index: HeldOutIndex, group: ShingleRows, begin: int) -> list[tuple[int, int, int]]:
        return [
            (begin + row, held_out, found)
            for row in range(len(group))
            for held_out, found in index.held_by(
                group.shingles[group.ends[row] : group.ends[row + 1]], self.config.held_out_containment
            )
        ]


@dataclass(frozen=True)
class FindContained:
    """Looks up which documents may stand in those of a shard, most of each; commits the pairs as a part."""

    writer: ArtifactWriter
    index: tuple[StoredFile, ...]
    """The files of `containment_index`."""

    def __call__(self, shard: ShingleShard) -> None:
        """Do one shard."""
        index = ShingleIndex(_mapped(self.writer, self.index))
        pairs: list[tuple[int, int]] = []
        begin = 0
        for group in read_shingles(shard.corpus.open(shard.file)):
            for row in range(len(group)):
                shingles = group.shingles[group.ends[row] : group.ends[row + 1]]
                pairs += [(begin + row, owner) for owner in index.owners(shingles)]
            begin += len(group)
        path = self.writer.scratch() / f"{shard.name}.npy"
        np.save(path, np.array(pairs, np.int64).reshape(-1, 2))
        self.writer.commit(contained_name(shard), {"pairs": path})


def contained_name(shard: ShingleShard) -> str:
    """Return the name of the part with the pairs of a shard."""
    return f"contained-{shard.name}"


def _mapped(writer: ArtifactWriter, files: tuple[StoredFile, ...]) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of an index. Checking its files may take as long as a shard, so that it is done once."""
    if files not in _maps:
        _maps.clear()
        _maps[files] = {file.role: np.load(writer.open(file), mmap_mode="r") for file in files}
    return _maps[files]


_maps: dict[tuple[StoredFile, ...], dict[str, npt.NDArray[Any]]] = {}


def _smallest(group: ShingleRows) -> Hashes32:
    places = group.ends[:-1, None] + np.arange(SMALLEST)
    padded = np.concatenate((group.shingles, np.zeros(SMALLEST, np.uint32)))
    found: Hashes32 = padded[np.minimum(places, len(group.shingles))]
    return found


def _rows(group: ShingleRows) -> npt.NDArray[np.void]:
    rows = np.empty(len(group), ROW)
    rows["exact"], rows["size"] = group.exact, np.diff(group.ends)
    rows["near"] = group.near & (rows["size"] > 0)
    return rows
