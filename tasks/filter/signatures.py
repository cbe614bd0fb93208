"""MinHash signatures: what tells near duplicates without their text.

Two documents agree in a position of their signatures with the probability of their Jaccard similarity: the
share of word n-grams that both have among those that one of them has. Source: Broder 1997, "On the resemblance
and containment of documents".
"""

import numpy as np

from storage.formats.minhash import Hashes, MinHash
from tasks.filter.kernels import BASE, smallest


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
        return smallest(n_gram_hashes(word_hashes, self.layout.n_grams), self.factors, self.summands)


def n_gram_hashes(word_hashes: Hashes, size: int) -> Hashes:
    """Return a well-mixed hash of every `size` neighbouring words, in order."""
    count = len(word_hashes) - size + 1
    hashes = word_hashes[:count].copy()
    for offset in range(1, size):
        hashes *= BASE
        hashes ^= hashes >> np.uint64(29)
        hashes += word_hashes[offset : offset + count]
    hashes ^= hashes >> np.uint64(32)
    hashes *= BASE
    hashes ^= hashes >> np.uint64(29)
    return hashes
