"""The layout of MinHash signatures."""

import numpy as np
import numpy.typing as npt
from pydantic import Field

from storage.config import Config

Hashes = npt.NDArray[np.uint64]
"""A signature: the smallest hash of a document under each permutation."""


class MinHash(Config):
    """Layout of the signatures. Two documents become a candidate pair if they agree in all of one bucket.

    With similarity s that has the probability 1 - (1 - s^hashes_per_bucket)^num_buckets: for 14 x 8 it is 0.92
    at 0.8 and 0.06 at 0.5. Defaults and field names are datatrove's.
    """

    n_grams: int = Field(default=5, ge=1, le=100)
    """Words per n-gram. Documents with fewer words have no signature."""
    num_buckets: int = Field(default=14, ge=1, le=256)
    """More buckets find less similar pairs."""
    hashes_per_bucket: int = Field(default=8, ge=1, le=64)
    """More hashes per bucket find fewer pairs of little similarity."""
    seed: int = Field(default=1, ge=0)
    """Chooses the permutations."""

    @property
    def hashes(self) -> int:
        """Positions of a signature."""
        return self.num_buckets * self.hashes_per_bucket
