"""The rule about the size of a document."""

from typing import Literal

from pydantic import Field, model_validator

from tasks.filter.rules.base import EMPTY, KEEP, Drop, Judgement, Rule, RuleConfig
from tasks.filter.rules.view import DocumentView


class Length(RuleConfig):
    """How long a document may be."""

    rule: Literal["length"] = "length"
    min_characters: int = Field(default=1, ge=1)
    """Shorter documents are dropped (`too-short`), surrounding white space not counted."""
    min_words: int = Field(default=1, ge=1)
    """Documents with fewer words between white space are dropped (`too-few-words`)."""
    max_characters: int | None = Field(default=None, ge=1)
    """Longer documents are dropped (`too-long`)."""

    @model_validator(mode="after")
    def _possible(self) -> "Length":
        if self.max_characters is not None and self.max_characters < self.min_characters:
            raise ValueError(
                f"max_characters must be at least min_characters={self.min_characters}, "
                f"found {self.max_characters}; no document could be kept"
            )
        return self


class LengthRule(Rule[Length]):
    """Drops documents that are empty, too short or too long."""

    config_type = Length

    @classmethod
    def examples(cls) -> tuple[Length, list[tuple[str, Judgement]]]:
        """Return one text for each bound."""
        return Length(min_characters=4, min_words=3, max_characters=100), [
            (" \n\t ", Drop(EMPTY)),
            ("  ab  ", Drop("too-short")),
            ("abcdefgh", Drop("too-few-words")),
            ("a bc def", KEEP),
            ("a bc def " * 20, Drop("too-long")),
        ]

    def judge(self, view: DocumentView) -> Judgement:
        """Compare characters, then words."""
        if not view.characters:
            return Drop(EMPTY, 0)
        if view.characters < self.config.min_characters:
            return Drop("too-short", view.characters)
        if self.config.max_characters is not None and view.characters > self.config.max_characters:
            return Drop("too-long", view.characters)
        if self.config.min_words > 1 and len(view.words) < self.config.min_words:
            return Drop("too-few-words", len(view.words))
        return KEEP
