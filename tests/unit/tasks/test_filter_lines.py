"""Lines and paragraphs of a document are counted as Python splits them."""

import numpy as np
from datatrove.utils.text import PUNCTUATION_SET, TERMINAL_PUNCTUATION
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tasks.filter.line_facts import LineFacts, ParagraphFacts
from tasks.filter.rules.view import DocumentView
from tasks.filter.words import DocumentWords

AWKWARD = "ab .-\u2022\u2026#!\u3002\n\n\n\r\x0b\x0c\x1c\x85\u2028 \t\xa0"
texts = st.one_of(
    st.text(alphabet="a \n", max_size=40),
    st.text(alphabet="ab.#-\n\r", max_size=60),
    st.text(alphabet=AWKWARD, max_size=60),
    st.text(max_size=60),
)


def slow_lines(text: str) -> LineFacts:
    lines = [line for line in text.split("\n") if line]
    written = [line for line in lines if not line.isspace()]
    return LineFacts(
        lines=len(lines),
        repeated=len(lines) - len(set(lines)),
        repeated_characters=sum(map(len, lines)) - sum(map(len, set(lines))),
        written=len(written),
        written_repeated=len(written) - len(set(written)),
        written_repeated_characters=sum(map(len, written)) - sum(map(len, set(written))),
        ended=sum(line[-1] in TERMINAL_PUNCTUATION for line in written),
        feeds=text.count("\n"),
        all_lines=len(text.splitlines()),
        hashes=text.count("#"),
        ellipses=text.count("...") + text.count("\u2026"),
        dashes=text.count("-") + text.count("\u2022"),
    )


@settings(max_examples=600, deadline=None)
@given(texts)
@example("\r\n\r\n")
@example("a\r")
@example(".......")
@example("..\n.")
def test_lines_are_counted_as_python_splits_them(text: str) -> None:
    assert DocumentWords(text).lines == slow_lines(text)


@settings(max_examples=600, deadline=None)
@given(texts)
@example("a\n\n\na\n\n\n\na")
@example(" \n\na \n \na\n\n ")
def test_paragraphs_are_counted_as_the_view_splits_them(text: str) -> None:
    paragraphs = DocumentView(text).paragraphs
    characters = sum(map(len, paragraphs)) - sum(map(len, set(paragraphs)))

    expected = ParagraphFacts(len(paragraphs), len(paragraphs) - len(set(paragraphs)), characters)
    assert DocumentWords(text).paragraphs == expected


@settings(max_examples=300, deadline=None)
@given(texts, st.integers(0, 8))
def test_short_lines_are_those_of_at_most_so_many_characters(text: str, most: int) -> None:
    lengths = [len(line) for line in text.split("\n") if line.strip()]

    assert DocumentWords(text).short_lines(most) == sum(length <= most for length in lengths)


@settings(max_examples=300, deadline=None)
@given(texts)
def test_words_are_counted_by_what_they_hold(text: str) -> None:
    words, counts = text.split(), DocumentWords(text).counts
    spoken = [word for word in words if not set(word) <= PUNCTUATION_SET]

    assert counts.spoken == len(spoken)
    assert counts.spoken_characters == sum(map(len, spoken))
    assert counts.lettered == sum(any(map(str.isalpha, word)) for word in words)


def test_lines_of_equal_hashes_are_told_apart_by_their_characters() -> None:
    # A polynomial over 2^64 has the same value for Thue-Morse words and their complements of 1024 letters.
    bits = np.array([bin(number).count("1") % 2 for number in range(2048)])
    first, second = ("".join("ab"[bit] for bit in row) for row in (bits, 1 - bits))

    facts = DocumentWords(f"{first}\n{second}\n{first}").lines

    assert (facts.lines, facts.repeated) == (3, 1)
