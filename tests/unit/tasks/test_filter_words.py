import numpy as np
import pytest
import xxhash
from datatrove.utils.text import PUNCTUATION_SET, simplify_text
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.filter import words as filter_words
from tasks.filter.words import WhitespaceTokenizer, WordTable, normalised_lines

# Letters with and without accents, final sigma, digits and separators of several scripts, marks, and every kind of
# white space that str.split knows.
AWKWARD = "aAbΣσςéÉe\u0301İßñ中１٣٫،0129.,-_'’#•…()<>{}\u302e\U0001d165 \t\n\r\x0b\x0c\x1c\x85\xa0\u2003\u2028"
texts = st.one_of(st.text(alphabet=AWKWARD, max_size=60), st.text(max_size=60))


@settings(max_examples=500, deadline=None)
@given(texts)
def test_normalised_words_of_any_text_are_those_of_datatrove(text: str) -> None:
    words = b" ".join(normalised_lines(text.split())).decode().split()
    assert words == simplify_text(text).split()


@pytest.fixture(scope="module")
def table() -> WordTable:
    return WordTable()


@settings(max_examples=200, deadline=None)
@given(text=texts)
def test_table_rows_of_any_text_say_what_python_says(text: str, table: WordTable) -> None:
    words = table.words(text)
    raw = text.split()

    assert words.rows["characters"].tolist() == [len(word) for word in raw]
    assert words.rows["has_letter"].tolist() == [any(map(str.isalpha, word)) for word in raw]
    assert words.rows["only_marks"].tolist() == [set(word) <= PUNCTUATION_SET for word in raw]
    hashes = [xxhash.xxh3_64_intdigest(word.encode()) for word in simplify_text(text).split()]
    assert words.normalised_hashes().tolist() == hashes
    assert [table.number(word) for word in raw] == words.numbers.tolist()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(alphabet="ab", min_size=1, max_size=3), max_size=40), st.integers(1, 6))
def test_window_hashes_are_equal_exactly_when_the_joined_words_are(raw: list[str], size: int) -> None:
    hashes = WordTable().words(" ".join(raw)).window_hashes(size).tolist()
    joined = ["".join(raw[start : start + size]) for start in range(len(raw) - size + 1)]

    assert len(hashes) == len(joined)
    assert len(set(hashes)) == len(set(joined)) == len(set(zip(hashes, joined, strict=True)))


def test_table_that_is_full_starts_afresh_with_the_same_results(monkeypatch: pytest.MonkeyPatch) -> None:
    documents = ["one two three", "four five, two", "six-pack and 3,5 more", "one two three"]
    table = WordTable()
    reference = [table.words(text) for text in documents]
    assert table.number("five,") >= 0

    monkeypatch.setattr(filter_words, "MAX_WORDS", 3)
    table = WordTable()
    for text, expected in zip(documents, reference, strict=True):
        words = table.words(text)
        assert np.array_equal(words.normalised_hashes(), expected.normalised_hashes())
        assert np.array_equal(words.window_hashes(2), expected.window_hashes(2))
    assert table.number("five,") == -1


def test_document_without_words_has_no_hashes() -> None:
    words = WordTable().words(" \n ")

    assert len(words) == 0
    assert len(words.normalised_hashes()) == 0
    assert len(words.window_hashes(1)) == 0


def test_whitespace_tokenizer_spans_cover_its_sentences() -> None:
    text = "One sentence. Another!\nA third line"
    tokenizer = WhitespaceTokenizer()

    assert tokenizer.word_tokenize(text) == text.split()
    assert [text[start:end].strip() for start, end in tokenizer.span_tokenize(text)] == tokenizer.sent_tokenize(
        text
    )
