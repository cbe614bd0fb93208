"""The rule about the size of a document."""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field, model_validator

from tasks.filter.rules.base import EMPTY, KEEP, Drop, Judgement, Measure, Rule, RuleConfig, first_broken
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
        return first_broken(self.measures(view))

    def measures(self, view: DocumentView) -> Iterator[Measure]:
        """Yield the number of characters, then that of words."""
        rules = self.config
        if not view.characters:
            yield Measure(EMPTY, 0, 1, is_least=True)
        if rules.min_characters > 1:
            yield Measure("too-short", view.characters, rules.min_characters, is_least=True)
        if rules.max_characters is not None:
            yield Measure("too-long", view.characters, rules.max_characters)
        if rules.min_words > 1:
            yield Measure("too-few-words", len(view.words), rules.min_words, is_least=True)
