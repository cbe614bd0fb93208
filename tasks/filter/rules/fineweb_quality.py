"""The rule of FineWeb about text extracted from web pages."""

from typing import Literal

from pydantic import Field

from storage.registry import LazyFunction
from tasks.filter.rules.base import EMPTY, KEEP, Drop, Judgement, RuleConfig
from tasks.filter.rules.stock import StockRule


class FineWebQuality(RuleConfig):
    """datatrove's FineWebQualityFilter: does it look like text and not like the navigation of a web page?

    Source: Penedo et al. 2024, arXiv:2406.17557, section 3.6. Field names are datatrove's.
    """

    rule: Literal["fineweb-quality"] = "fineweb-quality"
    line_punct_thr: float = Field(default=0.12, ge=0, le=1)
    """Smallest share of lines that end with a punctuation mark."""
    short_line_thr: float = Field(default=0.67, ge=0, le=1)
    """Largest share of short lines."""
    short_line_length: int = Field(default=30, ge=0)
    """Up to this many characters a line is short."""
    char_duplicates_ratio: float = Field(default=0.01, ge=0)
    """Largest share of characters in repeated lines."""
    new_line_ratio: float = Field(default=0.3, ge=0)
    """Most line breaks per word."""


class FineWebQualityRule(StockRule[FineWebQuality]):
    """datatrove's filter with its reasons."""

    config_type = FineWebQuality
    stock = LazyFunction("datatrove.pipeline.filters.fineweb_quality_filter:FineWebQualityFilter")

    @classmethod
    def examples(cls) -> tuple[FineWebQuality, list[tuple[str, Judgement]]]:
        """Return one text for each bound."""
        sentences = [
            f"The {word} sentence is longer than thirty characters." for word in ("first", "second", "last")
        ]
        return FineWebQuality(), [
            ("\n".join(sentences), KEEP),
            ("", Drop(EMPTY)),
            ("\n".join(line.rstrip(".") for line in sentences), Drop("line_punct_ratio")),
            ("Home.\nNews.\nContact.\n", Drop("short_line_ratio")),
            ("\n".join(sentences + sentences), Drop("char_dup_ratio")),
            ("\n".join(f"{letter * 40}." for letter in "abc"), Drop("list_ratio")),
        ]
