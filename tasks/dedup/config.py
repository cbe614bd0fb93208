"""What counts as a duplicate."""

from pydantic import Field

from storage.config import Config

CONTAMINATION = "contamination"
"""Count `contamination.<subset>.<split>.<reason>`: training documents dropped for one held out in `split`."""


class DedupConfig(Config):
    """What counts as a duplicate. How signatures are made is decided by `filter`."""

    near_duplicates: bool = True
    """Also drop near duplicates; exact ones (white space around the text aside) are dropped always."""
    min_similarity: float = Field(default=0.7, ge=0, le=1)
    """Smallest share of equal signature positions, an estimate of the Jaccard similarity of the word n-grams,
    between a dropped document and the kept one; 0 trusts every candidate pair."""
