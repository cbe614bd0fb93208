"""The loop that goes through the documents of a corpus in their order and decides who goes."""

import numpy as np
import numpy.typing as npt

from tasks.core.compiling import Hashes32, Places, compiled
from tasks.dedup.kernels import NOBODY, Bytes

KEPT, NEAR, CONTAINED, HOLDS_HELD_OUT, FOUND_IN_TRAIN = range(5)
"""What is decided about a document: it is kept; it resembles a kept one; most of it stands in a kept one; it holds
a held-out one; it is held out and stands in training text that is there already."""

MOST_COMPARED = 1000
"""Kept documents of one bucket that a document is compared with, the last ones. Those of a template, which are
alike but not alike enough, would otherwise all be compared with each other: for days if they are a million."""

ROUNDING = 1e-9
"""Added to a number of shingles that is compared with a share of others: 0.55 * 100 is more than 55."""

Table = npt.NDArray[np.uint32]
Shares = npt.NDArray[np.float32]
Whole = int | np.int64


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


@compiled("number", "table", "places", "points", "bytes", "points", "points")
def find_others(
    document: int,
    previous: Table,
    more_starts: Places,
    more: Hashes32,
    verdicts: Bytes,
    seen: Hashes32,
    others: Hashes32,
) -> tuple[int, bool]:
    """Fill in which kept documents one is compared with, each once; parameters are those of `decide`.

    `seen` has the last document that each was compared with. Returns: how many they are, and whether there would
    be more.
    """
    count, is_cut = 0, False
    for place in range(more_starts[document], more_starts[document + 1]):
        other = more[place]
        if verdicts[other] == KEPT and seen[other] != document:
            if count == others.size:
                return count, True
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
        while other != NOBODY and steps < MOST_COMPARED and count < others.size:
            if seen[other] != document:
                seen[other] = document
                others[count] = other
                count += 1
            other = previous[bucket, other]
            steps += 1
        is_cut = is_cut or other != NOBODY
    return count, is_cut


@compiled("number", "number", "number", "number", "number", "share", "share", "share")
def verdict_of(
    shared: Whole,
    size: Whole,
    other_size: Whole,
    near: Whole,
    more_held_out: Whole,
    min_similarity: float,
    min_containment: float,
    held_out_containment: float,
) -> tuple[int, float]:
    """Return what sharing so many shingles with a kept document says of one, and the share that decides.

    `near` is whether similarity may decide about the two; `more_held_out` is 1 if only the document is held out,
    -1 if only the other one is.
    """
    similarity, enough = shared / (size + other_size - shared), shared + ROUNDING
    if near and similarity >= min_similarity:
        return NEAR, similarity
    if more_held_out < 0 and enough >= held_out_containment * other_size:
        return HOLDS_HELD_OUT, shared / other_size
    if more_held_out > 0 and enough >= held_out_containment * size:
        return FOUND_IN_TRAIN, shared / size
    if enough >= min_containment * size:
        return CONTAINED, shared / size
    return KEPT, similarity


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
        count, is_cut = find_others(document, previous, more_starts, more, verdicts, seen, others)
        cut += is_cut
        begin, size, best = starts[document], np.int64(sizes[document]), -1.0
        for place in range(count):
            other = others[place]
            other_size = np.int64(sizes[other])
            shared = common(shingles[begin : begin + size], shingles[starts[other] : starts[other] + other_size])
            similarities[100 * shared // (size + other_size - shared)] += 1
            more_held_out = np.int64(held_out[document]) - np.int64(held_out[other])
            verdict, share = verdict_of(
                shared,
                size,
                other_size,
                near[document] & near[other],
                more_held_out,
                min_similarity,
                min_containment,
                held_out_containment,
            )
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
