"""The words of a document: what is said of them in one pass is what Python and datatrove say."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import numpy as np
import pytest
from datatrove.pipeline.filters.gopher_repetition_filter import (
    find_all_duplicate,
    find_top_duplicate,
    get_n_grams,
)
from datatrove.utils.text import PUNCTUATION_SET, TextNormConfig, simplify_text
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tasks.filter import words as filter_words
from tasks.filter.characters import Characters
from tasks.filter.words import DocumentWords, apart, hashed_words

KNOWN = [1270751374, 1931855472, 2374949349, 3760773816]

# Letters with and without accents, final sigma, forms of several characters, digits and separators of several
# scripts, marks, and every kind of white space that str.split knows.
AWKWARD = (
    "書かガกำ的ﾊaAbΣσςéÉe\u0301İßñ中각ﬀ\u037e１٣٫،0129.,-_'’#•…()<>{}\u302e\U0001d165"
    " \t\n\r\x0b\x0c\x1c\x85\xa0\u2003\u2028"
)  # fmt: skip
texts = st.one_of(
    st.text(alphabet=AWKWARD, max_size=60), st.text(max_size=60), st.text(alphabet="ab01.,- \n", max_size=80)
)
# Few letters, so that windows are alike whose words are not: "ab" "c" and "a" "bc".
few_letters = st.lists(st.text(alphabet="abé", min_size=1, max_size=3), min_size=1, max_size=60)


@settings(max_examples=500, deadline=None)
@given(texts)
@example("1.2.3 1.x 1, ２,5 1.٣")
def test_words_of_any_text_are_what_python_and_datatrove_say(text: str) -> None:
    words, raw = DocumentWords(text), text.split()

    assert len(words) == len(raw)
    assert words.lengths.tolist() == [len(word) for word in raw]
    assert words.have_letter.tolist() == [any(map(str.isalpha, word)) for word in raw]
    assert words.only_marks.tolist() == [set(word) <= PUNCTUATION_SET for word in raw]
    assert words.normalised.tolist() == hashed_words(apart(simplify_text(text)).split()).tolist()


@settings(max_examples=300, deadline=None)
@given(few_letters, st.integers(1, 6))
@example(["a", "ab", "b", "aa", "b", "b"], 2)
def test_windows_of_words_are_counted_as_the_stock_rules_do(raw: list[str], size: int) -> None:
    words, windows = DocumentWords(" ".join(raw)), get_n_grams(raw, size)

    assert words.repeated_letters(size) == find_all_duplicate(raw, size)
    count, length = words.most_frequent(size)
    assert count * length == (find_top_duplicate(windows) if windows else 0)
    assert words.longest(size) == max(map(len, windows), default=0)


def test_windows_of_long_words_are_told_apart() -> None:
    raw = [letter * 700 for letter in "abcabcaabc"]
    expected = find_all_duplicate(raw, 2), find_top_duplicate(get_n_grams(raw, 2))

    words = DocumentWords(" ".join(raw))
    count, length = words.most_frequent(2)
    assert (words.repeated_letters(2), count * length) == expected


@given(few_letters, st.text(alphabet="abé", min_size=1, max_size=3))
@example(["a"], "š")  # its last byte is that of an `a`
def test_word_is_found_exactly_where_it_stands_alone(raw: list[str], word: str) -> None:
    assert (word in DocumentWords(" ".join(raw))) == (word in raw)


@given(st.lists(st.text(alphabet="aé0", max_size=5), max_size=20))
def test_hashes_of_normalised_words_are_equal_exactly_for_equal_words(raw: list[str]) -> None:
    hashes = hashed_words(raw).tolist()

    assert len(set(hashes)) == len(set(raw)) == len(set(zip(hashes, raw, strict=True)))


def test_windows_longer_than_any_text_are_none() -> None:
    assert DocumentWords("a b c").longest(1 << 40) == 0


@pytest.mark.parametrize("text", ["", " \n "])
def test_document_without_words_has_none(text: str) -> None:
    words = DocumentWords(text)

    assert len(words) == len(words.normalised) == words.repeated_letters(1) == words.longest(2) == 0
    assert words.most_frequent(1) == (0, 0)
    assert "a" not in words


def test_characters_are_known_whichever_thread_meets_them_first(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["".join(map(chr, range(first, first + 4000))) for first in (0xAC00, 0xB400, 0xC300, 0x1E00, 0x4E00)]
    expected = [hashed_words(apart(simplify_text(text)).split()).tolist() for text in texts]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(3):
            tables = Characters()
            monkeypatch.setattr(filter_words, "characters", lambda tables=tables: tables)
            with ThreadPoolExecutor(8) as pool:
                found = pool.map(lambda text: DocumentWords(text).normalised.tolist(), texts * 3)
                assert [*found] == expected * 3
    finally:
        sys.setswitchinterval(interval)


def test_room_for_normal_forms_is_enough_for_all_characters() -> None:
    codes = [code for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    Characters().learn(np.array(codes, np.uint32))


PROGRAM = """
import json, sys
from tasks.filter.words import DocumentWords

found = []
for text in json.load(sys.stdin):
    words = DocumentWords(text)
    found.append([
        words.lengths.tolist(), words.normalised.tolist(), words.repeated_letters(2), words.most_frequent(2),
        "b" in words, words.shingles(2).tolist(), words.exact_hash().hex(), words.character_counts(),
    ])
print(json.dumps(found))
"""


def results(program: str, **environment: str) -> list[object]:
    texts = ["a b, a b 1.5 c", "é b Σσ ab é b", "x " * 70]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        input=json.dumps(texts),
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)  # type: ignore[no-any-return]


@pytest.mark.slow  # compiles twice
def test_damage_to_what_was_compiled_costs_time_only(tmp_path: Path) -> None:
    before = results(PROGRAM, NUMBA_CACHE_DIR=str(tmp_path))
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert kept
    for path in kept:
        path.write_bytes(b"")
    assert results(PROGRAM, NUMBA_CACHE_DIR=str(tmp_path)) == before


@pytest.mark.parametrize("way", ["switched off", "missing"])
def test_without_the_compiler_all_results_are_the_same(way: str) -> None:
    without = "import sys; sys.modules['numba'] = None\n" if way == "missing" else ""
    off = {"NUMBA_DISABLE_JIT": "1"} if way == "switched off" else {}
    assert results(without + PROGRAM, **off) == results(PROGRAM)


# ---- what documents are compared by --------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(texts, st.integers(1, 5))
def test_shingles_are_the_distinct_runs_of_normalised_words(text: str, size: int) -> None:
    words = apart(simplify_text(text)).split()
    runs = {tuple(words[start : start + size]) for start in range(len(words) - size + 1)}

    found = DocumentWords(text).shingles(size).tolist()

    assert len(found) == len(runs)
    assert found == sorted(set(found))


def test_shingles_of_texts_are_equal_exactly_where_their_runs_are() -> None:
    words = [f"w{number % 7}{number % 3}" for number in range(60)]
    texts = [" ".join(words[start : start + 12]) for start in range(0, 48, 3)]
    grams = [{tuple(text.split()[at : at + 5]) for at in range(8)} for text in texts]
    hashes = [set(DocumentWords(text.upper(), keep_numbers=True).shingles(5).tolist()) for text in texts]

    for first, one in zip(grams, hashes, strict=True):
        for second, other in zip(grams, hashes, strict=True):
            assert len(first & second) == len(one & other)


def test_shingles_of_a_known_text_never_change() -> None:
    # They lie in stores: other numbers here mean that the stage's version must be raised.
    assert DocumentWords("It was the best of times, it was").shingles(5).tolist() == KNOWN


@settings(max_examples=200, deadline=None)
@given(texts)
@example("1.2.3 1.x 1, ２,5 1.٣")
def test_numbers_are_kept_if_asked_as_datatrove_keeps_them(text: str) -> None:
    expected = apart(simplify_text(text, TextNormConfig(norm_numbers=False))).split()

    assert DocumentWords(text, keep_numbers=True).normalised.tolist() == hashed_words(expected).tolist()


@pytest.mark.parametrize(
    ("first", "second", "equal"),
    [
        ("a text", "\n a \t text\u2003", True),
        ("a text", "A text", False),
        ("a text", "a text.", False),
        ("ab c", "a bc", False),
        ("", " \n", True),
        ("é", "e\u0301", False),
    ],
)
def test_exact_hash_is_that_of_the_words(first: str, second: str, equal: bool) -> None:
    hashes = [DocumentWords(text).exact_hash() for text in (first, second)]

    assert (hashes[0] == hashes[1]) == equal
    assert {len(value) for value in hashes} == {16}


@pytest.mark.parametrize(
    "letters",
    ["的一是了我不人在他有这个上们来到时大地", "กขคงจฉชซญฐฑฒณดตถทธนบป", "あいうえおかきくけこさしすせそたちつ"],
    ids=["Han", "Thai", "Hiragana"],
)
def test_texts_without_blanks_are_compared_by_their_characters(letters: str) -> None:
    random = Random(1)
    text = "".join(random.choices(letters, k=600))
    edited = text[:300] + "ๆ々ゝ" + text[303:]

    one, other = (set(DocumentWords(each).shingles(5).tolist()) for each in (text, edited))

    assert len(one) > 500
    assert len(one & other) / len(one | other) > 0.95
