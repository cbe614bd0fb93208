"""Words and places for people are those that the filter and dedup judge by."""

from itertools import pairwise

import pytest
from datatrove.utils.text import PUNCTUATION
from hypothesis import example, given
from hypothesis import strategies as st

from tasks.filter.config import FilterConfig
from tasks.filter.explaining import common_places, decisive_places, normalised_words
from tasks.filter.policies import Policy
from tasks.filter.rules.registry import rule_config
from tasks.filter.words import DocumentWords, hashed_words
from tests.conformance.rule_checks import STRANGE_TEXTS

ODD = "猫がカ万ก្រᄀ가aAéΣσςİß1２٣.,٫:'-_\u0301\u0308\u200d\u037e \t\n\x1c\x85\u2028\x00" + PUNCTUATION


@pytest.mark.parametrize("keep_numbers", [False, True])
@given(text=st.text(st.one_of(st.sampled_from(ODD), st.characters(exclude_categories=["Cs"])), max_size=40))
@example(text="ΟΔΟΣ ΑΣ.Β Σ. aΣ-bΣ")
@example(text="3.5.7 1,000.50 a1b2 ٣٫٥ x.5 5.x")
@example(text="価格は3.5万円です。か\u3099が แมวนั่งบน mat ក្រុង")
@example(text="İstanbul I.I ﬁ ὼ 한국어")
def test_words_are_those_that_shingles_are_made_of(text: str, keep_numbers: bool) -> None:
    found = list(normalised_words(text, keep_numbers))
    hashes = DocumentWords(text, keep_numbers=keep_numbers).normalised
    assert hashed_words([word for word, _ in found]).tolist() == hashes.tolist()
    places = [place for _, place in found]
    assert all(begin < end for begin, end in places)
    assert all(last[1] <= after[0] for last, after in pairwise(places))


@pytest.mark.parametrize("text", [text for text in STRANGE_TEXTS if len(text) < 1000])
def test_words_of_strange_texts_are_those_that_shingles_are_made_of(text: str) -> None:
    found = [word for word, _ in normalised_words(text, False)]
    assert hashed_words(found).tolist() == DocumentWords(text).normalised.tolist()


def test_common_shingles_are_marked_in_both_texts() -> None:
    config = FilterConfig()
    one = "Before. The CAT, the dog and 7 owls sat there. After it all."
    other = "Else: the cat the-dog\nand 12 owls sat -- here and there, until late."
    first, second = common_places(config, ("Books3", one), ("Books3", other))
    assert [one[begin:end] for begin, end in first] == ["The CAT, the dog and 7 owls sat"]
    assert [other[begin:end] for begin, end in second] == ["the cat the-dog\nand 12 owls sat"]


def test_numbers_count_where_the_policy_keeps_them() -> None:
    texts = "add 1 and 2 and 3", "add 4 and 5 and 6"
    assert common_places(FilterConfig(), ("Books3", texts[0]), ("Books3", texts[1]))[0] == [(0, 17)]
    mathematics = "DM Mathematics"
    assert common_places(FilterConfig(), (mathematics, texts[0]), (mathematics, texts[1])) == ([], [])


def test_each_character_of_a_script_without_blanks_is_a_word() -> None:
    texts = "昨日、小猫坐在垫子上。", "今天小猫坐在垫子旁边"
    first, second = common_places(FilterConfig(), ("Books3", texts[0]), ("Books3", texts[1]))
    assert [texts[0][begin:end] for begin, end in first] == ["小猫坐在垫子"]
    assert [texts[1][begin:end] for begin, end in second] == ["小猫坐在垫子"]


def test_texts_of_fewer_words_than_a_shingle_share_nothing() -> None:
    assert common_places(FilterConfig(), ("Books3", "too short"), ("Books3", "too short")) == ([], [])


def test_places_are_those_of_the_rule_that_dropped_it() -> None:
    rules = (rule_config("length"), rule_config("code", max_line_characters=10), rule_config("code"))
    config = FilterConfig(policies={"all": Policy(rules=rules)}, subsets={}, default_policy="all")
    text = "short\nmuch longer than ten\nshort"
    assert decisive_places(config, "any", text, "code") == (text, [(6, 26)])
    assert decisive_places(config, "any", text, "length") == (text, [])
    assert decisive_places(config, "any", "kept", "code") == ("kept", [])
    assert decisive_places(config, "any", " \n", "") == (" \n", [])
