"""Finds documents with equal hashes, in memory that is bounded however many there are."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tasks.core.compiling import Hashes, Hashes32
from tasks.dedup.kernels import NOBODY, follow, link

Mask = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int64]

TABLE_BITS = 24
"""Slots of a table: 64 MB."""


def previous_equals(firsts: Hashes, seconds: Hashes, numbers: Numbers, wanted: Mask) -> Hashes32:
    """Return for each wanted document the last wanted one before it with the same two hashes, else NOBODY.

    Documents stand in the order of `numbers`, which say whose hashes are theirs. In memory: 4 bytes a document
    beside what is given, and a table of at most 64 MB. More documents than it holds are done piece by piece, those
    whose hashes begin alike.
    """
    previous = np.full(len(numbers), NOBODY, np.uint32)
    documents = max(len(numbers), 8)
    bits = max(0, (2 * documents - 1).bit_length() - TABLE_BITS)
    slots = 1 << ((2 * documents - 1).bit_length() - bits)
    flags = wanted.view(np.uint8)
    for piece in range(1 << bits):
        table = np.full(slots, NOBODY, np.uint32)
        if not link(firsts, seconds, numbers, flags, table, piece, bits, previous):
            # Hashes that begin alike were made up by somebody: one table for all.
            whole = np.full(slots << bits, NOBODY, np.uint32)
            link(firsts, seconds, numbers, flags, whole, 0, 0, previous)
            break
    return previous


def first_equals(firsts: Hashes, seconds: Hashes, numbers: Numbers) -> Hashes32:
    """Return for each document the first one with the same two hashes, itself if there is none before it."""
    found = np.empty(len(numbers), np.uint32)
    follow(previous_equals(firsts, seconds, numbers, np.ones(len(numbers), np.bool_)), found)
    return found


class BucketLinks(NamedTuple):
    """For each bucket and document the last one before it in the same bucket; on disk, 4 bytes for each.

    Only documents that share a bucket with another, or are wanted anyway, have a column.
    """

    documents: Hashes32
    """The documents that have a column, ascending."""
    table: npt.NDArray[np.uint32]
    """Shape (buckets, columns); refers to columns. It may be written to."""


def link_buckets(
    bucket: Callable[[int], Hashes],
    buckets: int,
    numbers: Numbers,
    wanted: Mask,
    also: Mask,
    scratch: Path,
    threads: int,
) -> BucketLinks:
    """Link the wanted documents that agree in a bucket, and give a column to some more.

    Documents stand in the order of `numbers`; `bucket(i)` returns a hash by number. In memory for each thread: 12
    bytes a document and one table of `previous_equals`.
    """
    whole = scratch / "links-of-all"
    linked = also.copy()

    def link_one(index: int) -> None:
        hashes = bucket(index)
        previous = previous_equals(hashes, hashes, numbers, wanted)
        later = previous != NOBODY
        linked[later] = True
        linked[previous[later]] = True
        previous.tofile(scratch / f"links-{index:04d}")

    with ThreadPoolExecutor(max(1, threads)) as pool:
        list(pool.map(link_one, range(buckets)))
    documents = np.flatnonzero(linked).astype(np.uint32)
    columns = np.full(len(wanted) + 1, NOBODY, np.uint32)
    columns[documents] = np.arange(len(documents), dtype=np.uint32)
    with whole.open("wb") as file:
        for index in range(buckets):
            path = scratch / f"links-{index:04d}"
            previous = np.fromfile(path, np.uint32)[documents]
            path.unlink()
            previous[previous != NOBODY] = columns[previous[previous != NOBODY]]
            previous.tofile(file)
    shape = (buckets, len(documents))
    if not len(documents):
        return BucketLinks(documents, np.empty(shape, np.uint32))
    return BucketLinks(documents, np.asarray(np.memmap(whole, np.uint32, "r+", shape=shape)))
