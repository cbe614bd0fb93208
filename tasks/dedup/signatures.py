"""MinHash signatures, as hashes of whole buckets: what finds pairs that may be alike without comparing all.

Two documents agree in one hash of their signatures with the probability of their Jaccard similarity: the share of
shingles that both have among those that one of them has. Source: Broder 1997, "On the resemblance and containment
of documents".
"""

import numpy as np
import numpy.typing as npt

from storage.formats.shingles import ShingleRows
from tasks.core.compiling import Hashes
from tasks.dedup.config import Bands
from tasks.dedup.kernels import sign


class Signer:
    """Signs documents in one layout."""

    def __init__(self, bands: Bands, seed: int) -> None:
        self.bands = bands
        # The raw stream of a bit generator is the part of numpy's random numbers that never changes.
        drawn = np.random.PCG64(seed).random_raw(bands.buckets * bands.hashes)
        self._factors = (drawn >> np.uint64(32)).astype(np.uint32) | np.uint32(1)
        self._summands = drawn.astype(np.uint32)

    def buckets(self, rows: ShingleRows, wanted: npt.NDArray[np.bool_]) -> Hashes:
        """Return the hashes of all buckets, shape (buckets, rows); zeros for rows that are not wanted."""
        found = np.zeros((self.bands.buckets, len(rows)), np.uint64)
        flags = wanted.astype(np.uint8)
        sign(rows.shingles, rows.ends, flags, self._factors, self._summands, self.bands.hashes, found)
        return found
