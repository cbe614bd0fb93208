"""What is no text: counts over characters are what Python says of them one by one, in all writing systems."""

import math
from itertools import pairwise

import pytest
from datatrove.utils.text import NUMBERS_PATTERN
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tasks.filter.rules.base import KEEP, Drop
from tasks.filter.rules.plain_text import FEW, FILLER, WINDOW, PlainText, PlainTextRule
from tasks.filter.rules.view import DocumentView
from tasks.filter.words import DocumentWords

WINDOWS = {bytes([byte]).decode("cp1252", "ignore") for byte in range(0x80, 0xA0)} - {""}
AWKWARD = "aZé1٣Σ中あ, \n\x01\x7f\x85\x9f\xa0\xad\ufffd\ue000\uf8ffÂÃ©Ð¾â€™ôõœ"
texts = st.text(AWKWARD, max_size=80) | st.text(max_size=80) | st.text("ab1 ", max_size=80)


def is_trail(character: str) -> bool:
    return "\x80" <= character <= "\xbf" or character in WINDOWS


def is_control(character: str) -> bool:
    return (
        character < " "
        or "\x7f" <= character < "\xa0"
        or "\ue000" <= character <= "\uf8ff"
        or character == "\ufffd"
    )


def is_letter(character: str) -> bool | None:
    """Return None for what is neither letter nor digit."""
    return True if character.isalpha() else False if NUMBERS_PATTERN.fullmatch(character) else None


@settings(max_examples=500, deadline=None)
@given(texts)
@example("a1 b2")
@example("Ã©Ã©")
def test_characters_are_counted_as_python_counts_them(text: str) -> None:
    found = DocumentWords(text).character_counts()
    letters = "".join(text.split())
    pairs = list(pairwise(letters))

    assert found.letters == sum(map(str.isalpha, letters))
    assert found.controls == sum(map(is_control, letters))
    within = [pair for word in text.split() for pair in pairwise(word)]
    assert found.misread == sum("\xc2" <= first <= "\xf4" and is_trail(second) for first, second in within)
    kinds = [(is_letter(first), is_letter(second)) for first, second in pairs]
    assert found.alternations == kinds.count((True, False)) + kinds.count((False, True))
    assert found.single_letters == sum(len(w) == 1 and w.isalpha() and w < "\u2e80" for w in text.split())


@pytest.mark.parametrize(
    "text",
    [
        "Бер ике өч дүрт биш.",
        "北京市大学生在图书馆看书。",
        "हिन्दी में लिखा गया एक छोटा सा वाक्य।",
        "สวัสดีครับ นี่คือข้อความภาษาไทย",
        "Là-bas… « C'est l'été », dit-elle ; « à quoi bon ? »",
        "Þetta er íslenska, Ðað er ágætt.",
        "1. e4 e5 2. Nf3 Nc6 3. Bb5 and White stands well, as he did in all the games before.",
        "I am a b c of it; x + y = z, and so on.",
        "See https://example.org for the rest of the story, which is longer.",
        "The printer's lorem ipsum dolor sit amet is a text that nobody has to read, in no tongue at all.",
    ],
)
def test_text_in_any_language_is_kept(text: str) -> None:
    assert PlainTextRule(PlainText()).judge(DocumentView(text)) == KEEP


def test_words_of_a_short_text_need_not_repeat_and_a_long_one_is_judged_by_its_beginning() -> None:
    rule = PlainTextRule(PlainText())
    long = " ".join(f"word{'abcdefghij'[n % 10]}{'klmnopqrst'[n // 10 % 10]}" for n in range(WINDOW))

    assert rule.judge(DocumentView("yes " * (FEW - 1))) == KEEP
    found = rule.judge(DocumentView("yes " * FEW))
    assert isinstance(found, Drop)
    assert (found.reason, found.value) == ("few-different-words", 1 / math.sqrt(FEW))
    assert rule.judge(DocumentView(long + " yes" * 10 * WINDOW)) == KEEP


def test_null_switches_each_bound_off() -> None:
    nothing = PlainText.model_validate({name: None for name in PlainText.model_fields if name != "rule"})
    for text, _ in PlainTextRule.examples()[1]:
        view = DocumentView(text)
        assert PlainTextRule(nothing).judge(view) == KEEP
        assert list(PlainTextRule(nothing).measures(view)) == []


def test_filler_counts_only_where_it_says_so() -> None:
    latin = "Qui dolorem ipsum quia dolor sit amet consectetur " * 3
    found = {measure.reason: measure.value for measure in PlainTextRule(PlainText()).measures(DocumentView(latin))}

    assert len(FILLER) > 60
    assert found["filler"] == pytest.approx(6 / 8)
    assert found.keys() >= {"few-letters", "alternating", "misread", "controls", "single-letters", "links"}
