import subprocess
import sys
from typing import Any

import pytest
from datatrove.data import Document
from datatrove.pipeline.filters import FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter
from hypothesis import example, given, settings

from benchmarks.stock_words import WhitespaceTokenizer
from tasks.filter.policies import POLICIES
from tasks.filter.rules.base import (
    KEEP,
    Drop,
    Judgement,
    Rewrite,
    Rule,
    judge_document,
)
from tasks.filter.rules.code import Code, CodeRule
from tasks.filter.rules.fineweb_quality import FineWebQuality, FineWebQualityRule
from tasks.filter.rules.gopher_quality import GopherQuality, GopherQualityRule
from tasks.filter.rules.gopher_repetition import GopherRepetition, GopherRepetitionRule
from tasks.filter.rules.length import Length, LengthRule
from tasks.filter.rules.registry import make_rule, rule_config
from tasks.filter.rules.view import DocumentView
from tests.unit.tasks.rule_strategies import PROSE, VOCABULARY, documents, fineweb, quality, repetition

TOKENIZER = WhitespaceTokenizer()


def decision(judgement: Judgement) -> object:
    """Return a judgement as datatrove writes it."""
    return (False, judgement.reason) if isinstance(judgement, Drop) else judgement == KEEP


def settings_of(rules: GopherQuality | GopherRepetition | FineWebQuality) -> dict[str, Any]:
    """Return the arguments of the stock filter."""
    return {name: value for name, value in rules if name not in ("rule", "blank_lines")}


@settings(max_examples=300, deadline=None)
@given(documents, quality)
@example(PROSE, GopherQuality())
@example("the cat sat on a mat " * 9, GopherQuality(stop_words=("the", "the"), min_stop_words=2))
def test_gopher_quality_decides_as_the_stock_block(text: str, rules: GopherQuality) -> None:
    settings = {**settings_of(rules), "stop_words": list(rules.stop_words)}

    found = GopherQualityRule(rules).judge(DocumentView(text))

    assert decision(found) == GopherQualityFilter(**settings, language=TOKENIZER).filter(Document(text, "id"))


@settings(max_examples=500, deadline=None)
@given(documents, repetition)
@example(" ".join(f"word{i}" for i in range(100)), GopherRepetition())
@example("ab c d e f g h i " * 20 + "a bc d e f g hi j " * 20, GopherRepetition(top_n_grams=()))
def test_gopher_repetition_decides_as_the_stock_block(text: str, rules: GopherRepetition) -> None:
    stock = GopherRepetitionFilter(**settings_of(rules), language=TOKENIZER)

    found = GopherRepetitionRule(rules).judge(DocumentView(text))

    assert decision(found) == stock.filter(Document(text, "id"))


@settings(max_examples=300, deadline=None)
@given(documents, fineweb)
@example(" \n\t\n", FineWebQuality())
def test_fineweb_quality_decides_as_the_stock_block(text: str, rules: FineWebQuality) -> None:
    stock = FineWebQualityFilter(**settings_of(rules), language=TOKENIZER)

    found = FineWebQualityRule(rules).judge(DocumentView(text))

    assert decision(found) == stock.filter(Document(text, "id"))


def test_our_policies_never_change_a_document() -> None:
    text = "  \n" + PROSE * 3 + "\n\n\n- {a} \t\n"
    for policy in POLICIES.values():
        judged = judge_document([make_rule(rule) for rule in policy.rules], text)
        assert judged.document.text is text


class Replace(Rule[Length]):
    """Rewrites what the length rule drops."""

    def __init__(self, text: str) -> None:
        super().__init__(Length(min_words=3))
        self.text = text

    @classmethod
    def examples(cls) -> tuple[Length, list[tuple[str, Judgement]]]:
        return Length(), []

    def judge(self, view: DocumentView) -> Judgement:
        return Rewrite(self.text) if len(view.words) < 3 else KEEP


def test_rules_behind_one_that_rewrites_judge_the_new_text() -> None:
    length = make_rule(rule_config("length", min_words=3))

    view, drop, _ = judge_document([Replace("one two three"), length], "one")
    assert (view.text, drop) == ("one two three", None)
    _, drop, rule = judge_document([length, Replace("one two three")], "one")
    assert (drop, rule) == (Drop("too-few-words"), "length")


@pytest.mark.parametrize(("rules", "text"), [([], " \n"), ([Replace("\t")], "one")], ids=["read", "rewritten"])
def test_document_of_white_space_is_dropped_whatever_the_rules(rules: list[Rule[Length]], text: str) -> None:
    assert judge_document(rules, text)[1:] == (Drop("empty"), "empty")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", (False, "empty")),
        (" \n\t ", (False, "empty")),
        ("  ab  ", (False, "too-short")),
        ("abcdefgh", (False, "too-few-words")),
        ("a bc def", True),
        ("a bc def " * 20, (False, "too-long")),
    ],
)
def test_length_filter_names_the_bound_that_is_broken(text: str, expected: object) -> None:
    rules = Length(min_characters=4, min_words=3, max_characters=100)

    assert decision(LengthRule(rules).judge(DocumentView(text))) == expected


SOURCE = "def add(first, second):\n    return first + second\n" * 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SOURCE, True),
        (SOURCE + "x" * 1001, (False, "long-line")),
        (("y = 1; " * 20 + "\n") * 5, (False, "long-mean-line")),
        ("{}[]();;\n" * 20, (False, "low-alphanumeric")),
        ("é{}" * 30, True),
        ("é{}[]\n" * 30, (False, "low-alphanumeric")),
        ("# Auto-Generated by a tool\n" + SOURCE, (False, "autogenerated")),
        (SOURCE + "# do not edit\n", True),
    ],
    ids=["source", "long line", "minified", "marks", "accents", "accents and marks", "generated", "late marker"],
)
def test_code_filter_names_the_rule_that_is_broken(text: str, expected: object) -> None:
    assert decision(CodeRule(Code()).judge(DocumentView(text))) == expected


def test_rules_work_without_the_spacy_package() -> None:
    program = (
        "import sys; sys.modules['spacy'] = None\n"
        "from tasks.filter.policies import POLICIES\n"
        "from tasks.filter.rules.base import judge_document\n"
        "from tasks.filter.rules.registry import make_rule\n"
        f"text = {PROSE!r} * 9\n"
        "for policy in POLICIES.values():\n"
        "    for rule in policy.rules:\n"
        "        judge_document([make_rule(rule)], text).document.words.exact_hash()\n"
    )

    subprocess.run([sys.executable, "-c", program], check=True)


def test_blank_between_paragraphs_is_no_line_that_repeats_unless_one_wants_it_so() -> None:
    text = "\n \n".join(f"{word}s say what is not said about {word}y things." for word in VOCABULARY[:12])
    no_n_grams = {"top_n_grams": (), "dup_n_grams": ()}
    stock, ours = (
        make_rule(rule_config("gopher-repetition", blank_lines=blank, **no_n_grams)) for blank in (True, False)
    )

    assert stock.judge(DocumentView(text)) == Drop("dup_line_frac")
    assert ours.judge(DocumentView(text)) == KEEP
    assert ours.judge(DocumentView("one\n \none\n \none")) == Drop("dup_line_frac")
