"""Loops over the shingles of many documents: signing, linking those that agree, looking them up."""

import numpy as np
import numpy.typing as npt

from tasks.core.compiling import MIXER, Hashes, Hashes32, Places, compiled, mixed

NOBODY = np.uint32(0xFFFFFFFF)
"""In place of the number of a document."""
LARGEST = np.uint32(0xFFFFFFFF)

Bytes = npt.NDArray[np.uint8]


@compiled("fixed points", "fixed places", "bytes", "points", "points", "number", "hash table")
def sign(
    shingles: Hashes32,
    ends: Places,
    wanted: Bytes,
    factors: Hashes32,
    summands: Hashes32,
    hashes: int,
    buckets: npt.NDArray[np.uint64],
) -> None:
    """Fill in a hash for each bucket and wanted document: of its smallest `factor * shingle + summand mod 2^32`.

    Shapes: ends (documents + 1), factors and summands (buckets * hashes), buckets (buckets, documents).
    """
    best = np.empty(factors.size, np.uint32)
    for document in range(wanted.size):
        if not wanted[document]:
            continue
        best[:] = LARGEST
        for place in range(ends[document], ends[document + 1]):
            shingle = shingles[place]
            for index in range(factors.size):
                best[index] = min(best[index], np.uint32(factors[index] * shingle + summands[index]))
        for bucket in range(buckets.shape[0]):
            hashed = np.uint64(bucket)
            for index in range(bucket * hashes, (bucket + 1) * hashes):
                hashed = mixed(hashed * MIXER + np.uint64(best[index]))
            buckets[bucket, document] = hashed


@compiled("hashes", "hashes", "places", "bytes", "points", "number", "number", "points")
def link(
    firsts: Hashes,
    seconds: Hashes,
    numbers: Places,
    wanted: Bytes,
    table: Hashes32,
    piece: int,
    bits: int,
    previous: Hashes32,
) -> bool:
    """Set `previous` of each wanted document to the last one before it with the same two hashes, if there is one.

    Documents stand in the order of `numbers`, which say whose hashes are theirs. Only those are looked at whose
    first hash begins with `piece`, a number of so many bits: the table need only hold those. It has a power of two
    of free slots (NOBODY). Returns: whether they were enough.
    """
    used = 0
    for document in range(numbers.size):
        number = numbers[document]
        hashed = firsts[number]
        if not wanted[document] or (bits and np.int64(hashed >> np.uint64(64 - bits)) != piece):
            continue
        slot = np.int64(hashed & np.uint64(table.size - 1))
        other = table[slot]
        while other != NOBODY and (firsts[numbers[other]] != hashed or seconds[numbers[other]] != seconds[number]):
            slot = (slot + 1) & (table.size - 1)
            other = table[slot]
        if other == NOBODY:
            used += 1
            if used == table.size:
                return False
        previous[document] = other
        table[slot] = document
    return True


@compiled("points", "points")
def follow(previous: Hashes32, firsts: Hashes32) -> None:
    """Set `firsts` of each document to where its `previous` ones begin, itself if it has none."""
    for document in range(previous.size):
        firsts[document] = document if previous[document] == NOBODY else firsts[previous[document]]


@compiled("fixed points", "fixed bytes", "fixed points", "fixed places", "fixed points", "fixed bytes", "points")
def owners_of(
    shingles: Hashes32,
    bits: Bytes,
    keys: Hashes32,
    starts: Places,
    owners: Hashes32,
    needed: Bytes,
    counts: Hashes32,
) -> Hashes32:
    """Return who owns enough of some shingles, each once.

    Args:
        bits: A bit for the beginning of each key: most shingles are ruled out by it.
        keys: Ascending; the owners of key i are owners[starts[i] : starts[i + 1]].
        needed: How many are enough for each owner.
        counts: Zero for each owner, and zero again afterwards.
    """
    shift = 0
    while (np.int64(bits.size) * 8) << shift < np.int64(1) << 32:
        shift += 1
    touched = np.empty(16, np.uint32)
    size, found = 0, 0
    for shingle in shingles:
        place = np.int64(shingle) >> shift
        if not bits[place >> 3] >> (place & 7) & 1:
            continue
        key = np.searchsorted(keys, shingle)
        if key == keys.size or keys[key] != shingle:
            continue
        for index in range(starts[key], starts[key + 1]):
            owner = owners[index]
            if counts[owner] == 0:
                if size == touched.size:
                    touched = np.concatenate((touched, np.empty(size, np.uint32)))
                touched[size] = owner
                size += 1
            counts[owner] += 1
    for index in range(size):
        owner = touched[index]
        if counts[owner] >= needed[owner]:
            touched[found] = owner
            found += 1
        counts[owner] = 0
    return touched[:found].copy()
