"""Indexes over the shingles of some documents, in which others are looked up: who holds most of one of them?"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.core.compiling import Hashes32
from tasks.dedup.deciding import ROUNDING, common
from tasks.dedup.kernels import owners_of

Arrays = Mapping[str, npt.NDArray[Any]]

BITS_PER_KEY = 16
"""Of the bitmap that is asked first: one foreign shingle of 16 passes it."""

SMALLEST = 8
"""Shingles by which a document is found in longer ones: those of the smallest hashes, which are any."""

MOST_OWNERS = 1000
"""A shingle that more documents are to be found by belongs to a template, and none is found by it."""


class ShingleIndex:
    """Documents by some of their shingles. In memory, or mapped from files: 6 to 10 bytes for each of these."""

    def __init__(self, arrays: Arrays) -> None:
        self.arrays = {name: np.asarray(array) for name, array in arrays.items()}
        self._counts = np.zeros(len(self.arrays["needed"]), np.uint32)

    @classmethod
    def of(cls, keys: Hashes32, owners: Hashes32, needed: npt.NDArray[np.uint8]) -> "ShingleIndex":
        """Return the index of documents that own these keys; `needed` of its own must be found of each."""
        order = np.argsort(keys, kind="stable")
        distinct, starts = np.unique(keys[order], return_index=True)
        return cls(
            {
                "bits": _bitmap(distinct),
                "keys": distinct,
                "starts": np.append(starts, len(keys)).astype(np.int64),
                "owners": owners[order],
                "needed": needed,
            }
        )

    def write_files(self, folder: Path) -> dict[str, Path]:
        """Write a file for each array; return them by name."""
        paths = {name: folder / f"{name}.npy" for name in self.arrays}
        for name, path in paths.items():
            np.save(path, self.arrays[name])
        return paths

    def owners(self, document: Hashes32) -> list[int]:
        """Return the indexed documents of which enough keys are among the shingles of a document."""
        arrays = self.arrays
        found: list[int] = owners_of(
            document,
            arrays["bits"],
            arrays["keys"],
            arrays["starts"],
            arrays["owners"],
            arrays["needed"],
            self._counts,
        ).tolist()
        return found


class HeldOutIndex(ShingleIndex):
    """Held-out documents by their rarest shingles, and all their shingles to make sure: 4 bytes for each of these.

    A document that has at least `share` of the n shingles of another one lacks at most n - ceil(share * n) of
    them. So of any n - ceil(share * n) + 1 shingles it has at least one, and the index needs no others: it takes
    the rarest. Nothing is missed. Source of the idea: Chaudhuri et al. 2006, "A primitive operator for similarity
    joins in data cleaning", prefix filters.
    """

    @classmethod
    def of_documents(cls, documents: Sequence[Hashes32], share: float) -> "HeldOutIndex":
        """Return the index of documents, numbered in this order, for containment of at least `share`."""
        shingles = np.concatenate([np.empty(0, np.uint32), *documents])
        values, frequencies = np.unique(shingles, return_counts=True)
        rare = [_rarest(document, frequencies[np.searchsorted(values, document)], share) for document in documents]
        owners = np.repeat(np.arange(len(documents), dtype=np.uint32), [len(chosen) for chosen in rare])
        keys = np.concatenate([np.empty(0, np.uint32), *rare])
        index = ShingleIndex.of(keys, owners, np.ones(len(documents), np.uint8))
        ends = np.cumsum([0, *map(len, documents)], dtype=np.int64)
        return cls({**index.arrays, "ends": ends, "shingles": shingles})

    def held_by(self, document: Hashes32, share: float) -> Iterator[tuple[int, int]]:
        """Yield each indexed document of which `document` has at least `share`, and how many shingles of it."""
        ends, shingles = self.arrays["ends"], self.arrays["shingles"]
        for owner in self.owners(document):
            found = int(common(document, shingles[ends[owner] : ends[owner + 1]]))
            if found >= least(int(ends[owner + 1] - ends[owner]), share):
                yield owner, found


def containment_index(smallest: Hashes32, sizes: Hashes32) -> ShingleIndex:
    """Return the index of documents by their SMALLEST shingles, to be found where half of these are.

    Of a document of which 0.8 stands in another one, less than half of 8 shingles do with a probability of 1 %.
    Shape of `smallest`: (documents, SMALLEST); only the first sizes[i] of row i count.
    """
    counts = np.minimum(sizes, SMALLEST)
    rows, columns = np.nonzero(np.arange(SMALLEST) < counts[:, None])
    keys, owners = smallest[rows, columns], rows.astype(np.uint32)
    _, place, frequencies = np.unique(keys, return_inverse=True, return_counts=True)
    few = frequencies[place] <= MOST_OWNERS
    return ShingleIndex.of(keys[few], owners[few], np.maximum((counts + 1) // 2, 1).astype(np.uint8))


def least(size: int, share: float) -> int:
    """Return the fewest of `size` shingles that are a share."""
    return math.ceil(share * size - ROUNDING)


def _rarest(document: Hashes32, frequencies: npt.NDArray[np.intp], share: float) -> Hashes32:
    if not len(document):
        return document
    count = len(document) - least(len(document), share) + 1
    return document[np.argsort(frequencies, kind="stable")[:count]]


def _bitmap(keys: Hashes32) -> npt.NDArray[np.uint8]:
    width = min(max(3, (BITS_PER_KEY * max(len(keys), 1) - 1).bit_length()), 32)
    places = keys >> np.uint32(32 - width)
    bits = np.zeros(1 << (width - 3), np.uint8)
    np.bitwise_or.at(bits, places >> np.uint32(3), (1 << (places & 7)).astype(np.uint8))
    return bits
