"""What tells documents apart without their text: an exact hash, and a MinHash signature for near duplicates.

Two documents agree in a position of their signatures with the probability of their Jaccard similarity: the
share of word n-grams that both have among those that one of them has. Source: Broder 1997, "On the resemblance
and containment of documents".
"""

from collections.abc import Callable
from functools import cache
from typing import cast

import numpy as np
import xxhash

from storage.formats.minhash import Hashes, MinHash

Kernel = Callable[[Hashes, Hashes, Hashes], Hashes]

BLOCK = 1024
"""n-grams hashed at once: 112 x 1024 hashes are 0.9 MB, which stays in the second-level cache."""

_ODD = np.uint64(0x9E3779B97F4A7C15)


def exact_hash(text: str) -> bytes:
    """Return 16 bytes that are equal for equal texts; white space around the text does not count."""
    return xxhash.xxh3_128_digest(text.strip().encode())


class Signer:
    """Computes signatures of one layout."""

    def __init__(self, layout: MinHash) -> None:
        self.layout = layout
        # The raw stream of a bit generator is the part of numpy's random numbers that never changes.
        drawn = np.random.PCG64(layout.seed).random_raw(2 * layout.hashes)
        self.factors: Hashes = drawn[: layout.hashes] | np.uint64(1)
        self.summands: Hashes = drawn[layout.hashes :]

    def signature(self, word_hashes: Hashes) -> Hashes | None:
        """Return the signature of a document, given a hash of each word; None if it has too few words."""
        if len(word_hashes) < self.layout.n_grams:
            return None
        return minima_kernel()(n_gram_hashes(word_hashes, self.layout.n_grams), self.factors, self.summands)


def n_gram_hashes(word_hashes: Hashes, size: int) -> Hashes:
    """Return a well-mixed hash of every `size` neighbouring words, in order."""
    count = len(word_hashes) - size + 1
    hashes = word_hashes[:count].copy()
    for offset in range(1, size):
        hashes *= _ODD
        hashes ^= hashes >> np.uint64(29)
        hashes += word_hashes[offset : offset + count]
    hashes ^= hashes >> np.uint64(32)
    hashes *= _ODD
    hashes ^= hashes >> np.uint64(29)
    return hashes


@cache
def minima_kernel() -> Kernel:
    """Return the fastest way there is to find the smallest hash under each permutation; all agree."""
    try:
        import numba  # noqa: PLC0415 - the optional extra `fast`
    except ImportError:
        return minima_by_numpy
    return cast(Kernel, numba.njit(minima_by_loop))  # typed or not, as numba is installed or not


def minima_by_numpy(hashes: Hashes, factors: Hashes, summands: Hashes) -> Hashes:
    """Return min(factor * hash + summand mod 2^64) over all hashes, for each permutation."""
    best = np.full(len(factors), np.iinfo(np.uint64).max, np.uint64)
    block = np.empty((len(factors), min(BLOCK, len(hashes))), np.uint64)
    for start in range(0, len(hashes), BLOCK):
        part = hashes[start : start + BLOCK]
        permuted = np.multiply(factors[:, None], part[None, :], out=block[:, : len(part)])
        permuted += summands[:, None]
        np.minimum(best, permuted.min(axis=1), out=best)
    return best


def minima_by_loop(hashes: Hashes, factors: Hashes, summands: Hashes) -> Hashes:
    """Compute the same as `minima_by_numpy`; this form is for a compiler."""
    best = np.full(factors.size, np.uint64(0xFFFFFFFFFFFFFFFF), np.uint64)
    for i in range(hashes.size):
        for j in range(factors.size):
            permuted = factors[j] * hashes[i] + summands[j]
            if permuted < best[j]:
                best[j] = permuted
    return best
