"""What every filter rule promises (tasks/filter/rules/base.py), one check per promise, on any member.

A check gets the class of a rule and fails with an AssertionError, or with whatever the member raises.
"""

import json
import math
import os
import pickle
import re
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from storage.canonical import canonical_json
from tasks.filter.rules.base import KEEP, Drop, Judgement, Keep, Measure, Rewrite, Rule, RuleConfig, first_broken
from tasks.filter.rules.view import DocumentView

Member = type[Rule[Any]]

ROOT = Path(__file__).parents[2]
REASON = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
MOST_REASONS = 20
"""Reasons that a hundred documents of one kind may be dropped for; a reason that holds a measurement has more."""

STRANGE_TEXTS = (
    "",
    " \t\r\n ",
    "\x00\x1f\x7f",
    "x" * 1_000_000,
    "ab cd " * 30_000,
    "\n" * 10_000,
    "Бер, ике, өч: әлифба һәм җыр.\nЙөз дә бер.",
    "北京市大学生在图书馆看书。" * 50,
    "مرحبا بالعالم\n\nשלום עולם",
    "\u0301\u0308\u0301",
    "a \u0301 \u0301\n\u200d\u200f\ufeff",
    "🙂👩‍👩‍👧 🙂",
    "\u2028\u2029\x85\x0b\x0c",
    "… … ...\n- \n• \n#",
    '{"a": [1, 2.5e3, null]}\r\n' * 3,
)
SERIES = tuple("word " * length for length in range(1, 51)) + tuple("x" * length for length in range(1, 51))


def rule_of(member: Member) -> Rule[Any]:
    """Return a new rule with the config of the examples."""
    return member(member.examples()[0])


def texts_of(member: Member) -> list[str]:
    """Return the texts of the examples and the strange ones."""
    return [text for text, _ in member.examples()[1]] + list(STRANGE_TEXTS)


def judgement_of(rule: Rule[Any], view: DocumentView) -> Judgement | str:
    """Judge a document; where the rule raises, which is one check's business, return what."""
    try:
        return rule.judge(view)
    except Exception as error:  # noqa: BLE001 - whatever a member raises
        return repr(error)


def judged(rule: Rule[Any], texts: list[str]) -> list[Judgement | str]:
    """Judge each text in a view of its own."""
    return [judgement_of(rule, DocumentView(text)) for text in texts]


def member_is_described(member: Member) -> None:
    config = member.config_type
    assert issubclass(config, RuleConfig)
    assert type(config.version) is int
    assert config.version >= 1
    kind = config.model_fields["rule"]
    assert get_origin(kind.annotation) is Literal
    assert get_args(kind.annotation) == (kind.default,)
    assert all(field.description for name, field in config.model_fields.items() if name != "rule")


def examples_are_judged_as_told(member: Member) -> None:
    told = [judgement for _, judgement in member.examples()[1]]
    assert KEEP in told
    assert any(judgement != KEEP for judgement in told)
    assert judged(rule_of(member), [text for text, _ in member.examples()[1]]) == told


def config_survives_json(member: Member) -> None:
    config = member.examples()[0]
    read_back = member.config_type.model_validate_json(config.model_dump_json())
    assert read_back == config
    assert canonical_json(read_back.identity()) == canonical_json(config.identity())
    texts = texts_of(member)
    assert judged(member(read_back), texts) == judged(member(config), texts)


def name_version_and_config_are_in_the_key(member: Member) -> None:
    config = member.examples()[0]
    expected = {**json.loads(config.model_dump_json()), "version": config.version}
    assert json.loads(canonical_json(config.identity())) == expected


def judging_is_repeatable(member: Member) -> None:
    rule = rule_of(member)
    for text in texts_of(member):
        first, *others = judged(rule, [text] * 3)
        assert others == [first, first]


def other_documents_have_no_part_in_it(member: Member) -> None:
    texts = texts_of(member)
    backwards = judged(rule_of(member), texts[::-1])[::-1]
    assert judged(rule_of(member), texts) == backwards
    assert [judged(rule_of(member), [text])[0] for text in texts] == backwards


def pickled_rule_judges_alike(member: Member) -> None:
    texts = texts_of(member)
    rule = rule_of(member)
    unused = pickle.loads(pickle.dumps(rule))
    expected = judged(rule, texts)
    assert judged(unused, texts) == expected
    assert judged(pickle.loads(pickle.dumps(rule)), texts) == expected


def another_process_judges_alike(member: Member) -> None:
    texts = [*texts_of(member), *SERIES]
    assert judged_elsewhere(member, texts) == judged(rule_of(member), texts)


def strange_texts_are_judged(member: Member) -> None:
    rule = rule_of(member)
    for text in STRANGE_TEXTS:
        assert isinstance(rule.judge(DocumentView(text)), Keep | Drop | Rewrite)


def reasons_are_few_and_can_be_counted(member: Member) -> None:
    dropped = [found for found in judged(rule_of(member), [*texts_of(member), *SERIES]) if isinstance(found, Drop)]
    assert all(REASON.fullmatch(drop.reason) for drop in dropped)
    assert len({drop.reason for drop in dropped}) <= MOST_REASONS


def values_are_finite_numbers(member: Member) -> None:
    for found in judged(rule_of(member), [*texts_of(member), *SERIES]):
        if isinstance(found, Drop) and found.value is not None:
            assert type(found.value) in (int, float)
            assert math.isfinite(found.value)


def measures_are_what_it_judges_by(member: Member) -> None:
    rule = rule_of(member)
    for text in [*texts_of(member), *SERIES]:
        measures = list(rule.measures(DocumentView(text)))
        for measure in measures:
            assert REASON.fullmatch(measure.reason)
            assert all(math.isfinite(number) for number in (measure.value, measure.bound))
        if measures:
            agrees(judgement_of(rule, DocumentView(text)), measures)


def agrees(found: Judgement | str, measures: list[Measure]) -> None:
    """Fail unless a judgement is the first measure out of its bound, or a drop for what is no number."""
    broken = first_broken(measures)
    if isinstance(found, Drop) and found.value is None:
        assert found.reason not in {measure.reason for measure in measures}
    elif isinstance(found, Drop):
        assert isinstance(broken, Drop)
        assert (found.reason, found.value, found.bound) == (broken.reason, broken.value, broken.bound)
    elif isinstance(found, Keep | Rewrite):
        assert broken == KEEP


def places_lie_in_the_text_and_ascend(member: Member) -> None:
    rule = rule_of(member)
    for text in [*texts_of(member), *SERIES]:
        view = DocumentView(text)
        found = judgement_of(rule, view)
        for drop in [found] if isinstance(found, Drop) else [Drop("no-reason"), *drops_of(member)]:
            end = 0
            for begin, stop in rule.places(view, drop):
                assert type(begin) is type(stop) is int
                assert end <= begin < stop <= len(text)
                end = stop


def drops_of(member: Member) -> list[Drop]:
    """Return what the texts of the examples are dropped for."""
    return [judgement for _, judgement in member.examples()[1] if isinstance(judgement, Drop)]


def what_it_rewrote_it_keeps(member: Member) -> None:
    rule = rule_of(member)
    for text in texts_of(member):
        found = judgement_of(rule, DocumentView(text))
        if isinstance(found, Rewrite):
            assert found.text != text
            assert not isinstance(judgement_of(rule, DocumentView(found.text)), Drop | Rewrite)


def view_is_left_as_it_was(member: Member) -> None:
    rule = rule_of(member)
    for text in texts_of(member):
        view, untouched = DocumentView(text), DocumentView(text)
        _ = view.lines, view.paragraphs, view.words
        judgement_of(rule, view)
        assert view.text is text
        assert (view.lines, view.paragraphs) == (untouched.lines, untouched.paragraphs)
        assert view.characters == untouched.characters
        assert view.words.exact_hash() == untouched.words.exact_hash()
        for name in ("letters", "ends", "lengths", "have_letter", "only_marks", "normalised"):
            assert getattr(view.words, name).tolist() == getattr(untouched.words, name).tolist()


CHECKS: dict[str, Callable[[Member], None]] = {
    check.__name__: check
    for check in (
        member_is_described,
        examples_are_judged_as_told,
        config_survives_json,
        name_version_and_config_are_in_the_key,
        judging_is_repeatable,
        other_documents_have_no_part_in_it,
        pickled_rule_judges_alike,
        another_process_judges_alike,
        strange_texts_are_judged,
        reasons_are_few_and_can_be_counted,
        values_are_finite_numbers,
        places_lie_in_the_text_and_ascend,
        measures_are_what_it_judges_by,
        what_it_rewrote_it_keeps,
        view_is_left_as_it_was,
    )
}


def judged_elsewhere(member: Member, texts: list[str]) -> list[Judgement | str]:
    """Judge each text in a process in which nothing is as it is here; see `rule_process.py`."""
    process = _elsewhere()
    assert process.stdin is not None
    assert process.stdout is not None
    pickle.dump((member, member.examples()[0], texts), process.stdin)
    process.stdin.flush()
    found: list[Judgement | str] = pickle.load(process.stdout)
    return found


@cache
def _elsewhere() -> subprocess.Popen[bytes]:
    """Start it, one for all members since imports take long; it ends with this one, at the end of input."""
    hours = time.localtime().tm_gmtoff // 3600
    return subprocess.Popen(
        [sys.executable, "-m", "tests.conformance.rule_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd="/",
        env={
            "PATH": os.defpath,
            "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
            "PYTHONHASHSEED": "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1",
            "TZ": f"AWAY{-(hours % 24 - 12):+d}",  # twelve hours away; POSIX counts them westwards
        },
    )
