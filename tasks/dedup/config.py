"""What counts as a duplicate."""

import math
import re
from typing import Literal, NamedTuple

from pydantic import Field, field_validator, model_validator

from storage.config import Config

CONTAMINATION = "contamination"
"""Count `contamination.<subset>.<split>.<reason>`: training documents dropped for one held out in `split`."""

KEY = re.compile("[0-9a-f]{16}")

ABOVE = 0.05
"""How far above the threshold `min_recall` holds; above thresholds from 0.9 on half as far as there is to 1."""


class Bands(NamedTuple):
    """Layout of MinHash signatures. Two documents are compared if they agree in all hashes of one bucket.

    With similarity s that has the probability 1 - (1 - s^hashes)^buckets.
    """

    buckets: int
    hashes: int
    """Of each bucket."""

    def recall(self, similarity: float) -> float:
        """Return the probability that two documents of a similarity are compared."""
        return 1 - float((1 - similarity**self.hashes) ** self.buckets)


class DedupConfig(Config):
    """What counts as a duplicate. What documents are compared by is decided by `filter`."""

    near_duplicates: bool = True
    """Also drop near duplicates; exact ones (equal words, whatever white space is between) are dropped always."""
    min_similarity: float = Field(default=0.5, ge=0.1, le=1)
    """Smallest Jaccard similarity of two documents' shingles at which one of them is dropped. It is computed of
    every pair that is compared, not estimated."""
    min_recall: float = Field(default=0.995, gt=0, lt=1)
    """Share of the pairs 0.05 above `min_similarity` that are compared at least; of more similar ones it is more.
    From 0.9 on it holds half way between `min_similarity` and 1. The buckets of MinHash and their hashes follow
    from both: 56 of 4 hashes by default."""
    num_buckets: int | None = Field(default=None, ge=1, le=1024)
    """Buckets in place of those that follow; together with `hashes_per_bucket`. datatrove's default is 14 of 8."""
    hashes_per_bucket: int | None = Field(default=None, ge=1, le=64)
    """Hashes that must agree in one bucket."""
    seed: int = Field(default=1, ge=0)
    """Chooses the hash functions."""
    keep: Literal["first", "longest"] = "first"
    """Which of several duplicates of one split is kept: the first of the corpus, or the one of most shingles."""
    min_containment: float | None = Field(default=None, ge=0.5, le=1)
    """Also drop a document of whose shingles at least this share stands in a kept one: of an earlier split, or a
    longer one of its own. Off by default."""
    held_out_containment: float = Field(default=0.8, ge=0.5, le=1)
    """A training document goes if at least this share of a held-out document's shingles stands in it."""
    held_out_min_shingles: int = Field(default=8, ge=1)
    """A held-out document of fewer shingles is a phrase that may stand anywhere: found within a training document
    it goes itself, in place of that document."""
    against: tuple[str, ...] = ()
    """Keys of earlier dedup artifacts of the same store. What they kept comes first: duplicates of it are dropped,
    without a look at its text."""

    @field_validator("against")
    @classmethod
    def _are_keys(cls, against: tuple[str, ...]) -> tuple[str, ...]:
        keys = tuple(key.removeprefix("dedup/") for key in against)
        for key in keys:
            if not KEY.fullmatch(key):
                raise ValueError(
                    f"against must name dedup artifacts by their keys of 16 hexadecimal digits, found {key!r}; "
                    f"`pile ls dedup` shows them"
                )
        return keys

    @model_validator(mode="after")
    def _both_or_none(self) -> "DedupConfig":
        if (self.num_buckets is None) != (self.hashes_per_bucket is None):
            raise ValueError(
                f"num_buckets and hashes_per_bucket must be set together, found num_buckets={self.num_buckets} "
                f"and hashes_per_bucket={self.hashes_per_bucket}"
            )
        return self

    @property
    def longest_first(self) -> bool:
        """Whether longer documents are decided about first: none stands in a shorter one."""
        return self.keep == "longest" or self.min_containment is not None

    @property
    def bands(self) -> Bands:
        """How documents are signed."""
        if self.num_buckets is not None and self.hashes_per_bucket is not None:
            return Bands(self.num_buckets, self.hashes_per_bucket)
        return bands_for(self.min_similarity + min(ABOVE, (1 - self.min_similarity) / 2), self.min_recall)


MOST_HASHES = 256
"""Of a signature that follows from a threshold: more in each bucket find fewer pairs that are not alike, but
demand more buckets."""


def bands_for(similarity: float, recall: float) -> Bands:
    """Return the layout of most hashes in a bucket that finds a pair of this similarity with this probability."""
    best = Bands(_buckets(similarity, recall), 1)
    for hashes in range(2, 65):
        buckets = _buckets(similarity**hashes, recall)
        if buckets * hashes <= MOST_HASHES:
            best = Bands(buckets, hashes)
    return best


def _buckets(agreement: float, recall: float) -> int:
    if agreement == 1:
        return 1
    return math.ceil(math.log(1 - recall) / math.log1p(-agreement) - 1e-9)
