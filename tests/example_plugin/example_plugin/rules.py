"""A filter rule against boilerplate: takes lines away that hold no text of the document."""

from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import Field

from tasks.filter.rules.base import KEEP, Drop, Judgement, Measure, Rewrite, Rule, RuleConfig, first_broken
from tasks.filter.rules.places import Place, lines
from tasks.filter.rules.view import DocumentView


class Boilerplate(RuleConfig):
    """Which lines are boilerplate, and how many of them a document may have."""

    rule: Literal["boilerplate"] = "boilerplate"
    phrases: tuple[str, ...] = ("all rights reserved", "accept cookies", "subscribe to our newsletter")
    """Lines that hold one of these are taken away; compared without case."""
    max_share: float = Field(default=0.5, ge=0, le=1)
    """Largest share of such lines; with more of them the document is dropped (`boilerplate`)."""


class BoilerplateRule(Rule[Boilerplate]):
    """Rewrites documents with some boilerplate, drops those with little else."""

    config_type = Boilerplate

    @classmethod
    def examples(cls) -> tuple[Boilerplate, list[tuple[str, Judgement]]]:
        """Return a text without, one with some and one with too much of it."""
        return Boilerplate(), [
            ("A poem.\nIts second line.", KEEP),
            ("A poem.\nIts second line.\nAll rights reserved.", Rewrite("A poem.\nIts second line.")),
            ("Accept cookies\nA poem.\nSubscribe to our newsletter!", Drop("boilerplate")),
        ]

    def judge(self, view: DocumentView) -> Judgement:
        """Look for the phrases in every line."""
        left = [line for line in view.lines if not self._is_boilerplate(line)]
        if len(left) == len(view.lines):
            return KEEP
        found = first_broken(self.measures(view))
        return Rewrite("\n".join(left)) if found == KEEP else found

    def measures(self, view: DocumentView) -> Iterator[Measure]:
        """Yield the share of lines with a phrase."""
        if view.lines:
            share = sum(map(self._is_boilerplate, view.lines)) / len(view.lines)
            yield Measure("boilerplate", share, self.config.max_share)

    def places(self, view: DocumentView, drop: Drop) -> Sequence[Place]:
        """Return the lines with a phrase."""
        return [(begin, end) for begin, end in lines(view.text) if self._is_boilerplate(view.text[begin:end])]

    def _is_boilerplate(self, line: str) -> bool:
        lowered = line.lower()
        return any(phrase.lower() in lowered for phrase in self.config.phrases)
