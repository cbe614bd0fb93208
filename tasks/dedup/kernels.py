"""Loops over the shingles of many documents: signing, linking those that agree, deciding who stays."""

import numpy as np
import numpy.typing as npt

from tasks.core.compiling import MIXER, Hashes, Hashes32, Places, compiled, mixed

NOBODY = np.uint32(0xFFFFFFFF)
"""In place of the number of a document."""
LARGEST = np.uint32(0xFFFFFFFF)

KEPT, NEAR, CONTAINED, HOLDS_HELD_OUT, FOUND_IN_TRAIN = range(5)
"""What is decided about a document: it is kept; it resembles a kept one; most of it stands in a kept one; it holds
a held-out one; it is held out and stands in training text that is there already."""

MOST_COMPARED = 1000
"""Kept documents of one bucket that a document is compared with, the last ones. Those of a template, which are
alike but not alike enough, would otherwise all be compared with each other: for days if they are a million."""

ROUNDING = 1e-9
"""Added to a number of shingles that is compared with a share of others: 0.55 * 100 is more than 55."""

Table = npt.NDArray[np.uint32]
Bytes = npt.NDArray[np.uint8]
Shares = npt.NDArray[np.float32]


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


@compiled("fixed points", "fixed points")
def common(first: Hashes32, second: Hashes32) -> int:
    """Return how many shingles two documents have in common; those of each are ascending and distinct."""
    found, place, other = 0, 0, 0
    while place < first.size and other < second.size:
        one, two = first[place], second[other]
        found += one == two
        place += one <= two
        other += two <= one
    return found


@compiled(
    "table", "places", "points", "fixed points", "places", "points",
    "bytes", "bytes", "number", "share", "share", "share", "points", "shares", "bytes", "places",
)  # fmt: skip
def decide(
    previous: Table,
    starts: Places,
    sizes: Hashes32,
    shingles: Hashes32,
    more_starts: Places,
    more: Hashes32,
    held_out: Bytes,
    near: Bytes,
    fixed: int,
    min_similarity: float,
    min_containment: float,
    held_out_containment: float,
    twins: Hashes32,
    shares: Shares,
    verdicts: Bytes,
    similarities: Places,
) -> int:
    """Go through documents in their order and drop each that a kept one before it stands for.

    Args:
        previous: The one before each document in each bucket; shape (buckets, documents). Changed.
        starts, sizes: Where the shingles of each document lie in `shingles`.
        more_starts, more: Other documents to compare with, those of document i from more_starts[i] on.
        held_out: Whether each document is.
        near: Whether it may be dropped for its similarity, or others for theirs with it.
        fixed: How many documents at the beginning are kept whatever they resemble.
        twins, shares, verdicts: Get the kept document that stands for a dropped one, the share of shingles that
            decided, and which of the verdicts it is.
        similarities: Gets how many of the pairs that are compared have 0 %, 1 % and so on in common, up to 100 %.

    Of several twins it is a held-out one, else the most similar one, else the first. Returns: how many documents
    met a bucket of which they saw only the last MOST_COMPARED.
    """
    seen = np.full(starts.size, NOBODY, np.uint32)
    others = np.empty(MOST_COMPARED * previous.shape[0], np.uint32)
    cut = 0
    for document in range(fixed, starts.size):
        count, is_cut = 0, False
        for place in range(more_starts[document], more_starts[document + 1]):
            other = more[place]
            if verdicts[other] == KEPT and seen[other] != document:
                if count == others.size:
                    is_cut = True
                    break
                seen[other] = document
                others[count] = other
                count += 1
        for bucket in range(previous.shape[0]):
            other = previous[bucket, document]
            if other != NOBODY and verdicts[other] != KEPT:
                # That one's points to the last kept one before it, as this one's will.
                other = previous[bucket, other]
                previous[bucket, document] = other
            steps = 0
            while other != NOBODY and steps < MOST_COMPARED:
                if seen[other] != document:
                    if count == others.size:
                        break
                    seen[other] = document
                    others[count] = other
                    count += 1
                other = previous[bucket, other]
                steps += 1
            is_cut = is_cut or other != NOBODY
        cut += is_cut
        begin, size, best = starts[document], np.int64(sizes[document]), -1.0
        for place in range(count):
            other = others[place]
            other_size = np.int64(sizes[other])
            shared = common(shingles[begin : begin + size], shingles[starts[other] : starts[other] + other_size])
            similarity = shared / (size + other_size - shared)
            similarities[np.int64(100 * similarity)] += 1
            verdict, share, enough = KEPT, similarity, shared + ROUNDING
            if near[document] and near[other] and similarity >= min_similarity:
                verdict = NEAR
            elif held_out[other] > held_out[document] and enough >= held_out_containment * other_size:
                verdict, share = HOLDS_HELD_OUT, shared / other_size
            elif held_out[document] > held_out[other] and enough >= held_out_containment * size:
                verdict, share = FOUND_IN_TRAIN, shared / size
            elif enough >= min_containment * size:
                verdict, share = CONTAINED, shared / size
            if verdict == KEPT:
                continue
            twin = twins[document]
            better = verdicts[document] == KEPT or held_out[other] > held_out[twin]
            if not better and held_out[other] == held_out[twin]:
                better = share > best or (share == best and other < twin)
            if better:
                best = share
                verdicts[document], twins[document], shares[document] = verdict, other, share
    return cut


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
