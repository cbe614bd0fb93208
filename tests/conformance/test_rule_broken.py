"""The suite for filter rules notices each broken promise: a member that breaks one fails that check alone."""

import itertools
import os
import time
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
from pydantic import Field

from tasks.filter.rules.base import KEEP, Drop, Judgement, Measure, Rewrite, Rule, RuleConfig
from tasks.filter.rules.view import DocumentView
from tests.conformance.rule_checks import CHECKS, Member


class TrimConfig(RuleConfig):
    """How long the lines of a document may be."""

    rule: Literal["trim"] = "trim"
    most: int = Field(default=100, ge=1)
    """Longest line."""


class Trim(Rule[Any]):
    """Drops documents with a long line, and takes white space from the ends of the others: keeps its promises."""

    config_type: ClassVar[type[RuleConfig]] = TrimConfig

    @classmethod
    def examples(cls) -> tuple[Any, list[tuple[str, Judgement]]]:
        return cls.config_type(rule="trim"), [
            ("one two", KEEP),
            (" one", Rewrite("one")),
            ("x" * 101, Drop("long")),
        ]

    def judge(self, view: DocumentView) -> Judgement:
        longest = max(map(len, view.lines), default=0)
        if longest > self.config.most:
            return self.drop(longest)
        return KEEP if view.text == view.text.strip() else self.rewrite(view.text)

    def measures(self, view: DocumentView) -> Iterator[Measure]:
        yield Measure("long", max(map(len, view.lines), default=0), self.config.most)

    def drop(self, longest: int) -> Drop:
        return Drop("long", longest, self.config.most)

    def rewrite(self, text: str) -> Judgement:
        return Rewrite(text.strip())


class HasNoVersion(Trim):
    class Config(TrimConfig):
        version = 0

    config_type = Config


class TellsAnotherReason(Trim):
    @classmethod
    def examples(cls) -> tuple[Any, list[tuple[str, Judgement]]]:
        config, told = super().examples()
        return config, [*told[:-1], (told[-1][0], Drop("too-long"))]


class ForgetsInJson(Trim):
    class Config(TrimConfig):
        most: int = Field(default=100, ge=1, exclude=True)
        """Longest line."""

        def identity(self) -> dict[str, Any]:
            return {"rule": self.rule, "version": self.version}

    config_type = Config

    @classmethod
    def examples(cls) -> tuple[Any, list[tuple[str, Judgement]]]:
        return cls.Config(most=99), super().examples()[1]


class HidesFromKey(Trim):
    class Config(TrimConfig):
        excluded_from_key = frozenset({"most"})

    config_type = Config


class DropsWhatItHasJustSeen(Trim):
    last = ""

    def judge(self, view: DocumentView) -> Judgement:
        is_new, self.last = view.text != self.last, view.text
        return super().judge(view) if is_new or not view.text else Drop("again")


class RemembersDocuments(Trim):
    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.first = ""

    def judge(self, view: DocumentView) -> Judgement:
        self.first = self.first or view.text
        found = super().judge(view)
        return Drop("not-the-first") if view.text == "one two" != self.first else found


class CannotBePickled(Trim):
    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.counter: Iterator[int] = (number for number in itertools.count())


class DependsOnTheProcess(Trim):
    def judge(self, view: DocumentView) -> Judgement:
        if view.text.startswith("word ") and self.is_bad_day(view.text):
            return Drop("bad-day")
        return super().judge(view)

    def is_bad_day(self, text: str) -> bool:
        raise NotImplementedError


class DependsOnHash(DependsOnTheProcess):
    def is_bad_day(self, text: str) -> bool:
        return hash(text) % 2 == 0


class DependsOnTheHour(DependsOnTheProcess):
    def is_bad_day(self, text: str) -> bool:
        return time.localtime().tm_hour < 12


class DependsOnProcessors(DependsOnTheProcess):
    def is_bad_day(self, text: str) -> bool:
        return os.cpu_count() == 1


class DependsOnTheFolder(DependsOnTheProcess):
    def is_bad_day(self, text: str) -> bool:
        return os.path.exists("pyproject.toml")


class CannotJudgeEmptyText(Trim):
    def judge(self, view: DocumentView) -> Judgement:
        if not view.text:
            raise ValueError("max() of no lines")
        return super().judge(view)


class MeasuresInReason(Trim):
    def judge(self, view: DocumentView) -> Judgement:
        found = super().judge(view)
        return Drop(f"long-{len(view.text)}") if view.text.startswith("word ") else found


class ValueIsNoNumber(Trim):
    def drop(self, longest: int) -> Drop:
        return Drop("long", float("inf"))

    def measures(self, view: DocumentView) -> Iterator[Measure]:
        yield from ()


class MeasuresSomethingElse(Trim):
    def measures(self, view: DocumentView) -> Iterator[Measure]:
        yield Measure("long", len(view.text), self.config.most)


class ShowsPlacesBehindTheText(Trim):
    def places(self, view: DocumentView, drop: Drop) -> list[tuple[int, int]]:
        return [(0, len(view.text) + 1)]


class SaysAnotherBound(Trim):
    def drop(self, longest: int) -> Drop:
        return Drop("long", longest, self.config.most + 1)


class CannotMeasureEmptyText(Trim):
    def measures(self, view: DocumentView) -> Iterator[Measure]:
        yield Measure("long", max(map(len, view.lines)), self.config.most)


class RewritesAgain(Trim):
    def rewrite(self, text: str) -> Judgement:
        return Rewrite(text[1:]) if text[:2].isspace() else super().rewrite(text)


class ChangesTheView(Trim):
    def judge(self, view: DocumentView) -> Judgement:
        view.words.lengths[:] = np.sort(view.words.lengths)[::-1]
        return super().judge(view)


BROKEN: dict[Member, str] = {
    HasNoVersion: "member_is_described",
    TellsAnotherReason: "examples_are_judged_as_told",
    ForgetsInJson: "config_survives_json",
    HidesFromKey: "name_version_and_config_are_in_the_key",
    DropsWhatItHasJustSeen: "judging_is_repeatable",
    RemembersDocuments: "other_documents_have_no_part_in_it",
    CannotBePickled: "pickled_rule_judges_alike",
    DependsOnHash: "another_process_judges_alike",
    DependsOnTheHour: "another_process_judges_alike",
    DependsOnProcessors: "another_process_judges_alike",
    DependsOnTheFolder: "another_process_judges_alike",
    CannotJudgeEmptyText: "strange_texts_are_judged",
    MeasuresInReason: "reasons_are_few_and_can_be_counted",
    ValueIsNoNumber: "values_are_finite_numbers",
    MeasuresSomethingElse: "measures_are_what_it_judges_by",
    ShowsPlacesBehindTheText: "places_lie_in_the_text_and_ascend",
    SaysAnotherBound: "measures_are_what_it_judges_by",
    CannotMeasureEmptyText: "measures_are_what_it_judges_by",
    RewritesAgain: "what_it_rewrote_it_keeps",
    ChangesTheView: "view_is_left_as_it_was",
}
"""Broken rule -> the check that it fails."""


def test_every_check_has_a_broken_member() -> None:
    assert set(BROKEN.values()) == set(CHECKS)


def failures(member: Member) -> set[str]:
    failed = set()
    for name, check in CHECKS.items():
        try:
            check(member)
        except (AssertionError, ValueError, TypeError):
            failed.add(name)
    return failed


def test_rule_that_keeps_its_promises_fails_no_check() -> None:
    assert failures(Trim) == set()


@pytest.mark.parametrize("member", BROKEN, ids=lambda member: member.__name__)
def test_broken_rule_fails_its_check_alone(member: Member) -> None:
    assert failures(member) == {BROKEN[member]}
