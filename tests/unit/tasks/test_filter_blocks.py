import subprocess
import sys
from random import Random

import pytest
from datatrove.data import Document
from datatrove.pipeline.filters import FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tasks.filter.policies import (
    POLICIES,
    CodeRules,
    FineWebQuality,
    GopherQuality,
    GopherRepetition,
    LengthRules,
    Policy,
)
from tasks.filter.rules.blocks import (
    CodeFilter,
    FastGopherQuality,
    FastGopherRepetition,
    LengthFilter,
    policy_blocks,
)
from tasks.filter.words import WhitespaceTokenizer

TOKENIZER = WhitespaceTokenizer()
VOCABULARY = [
    f"{start}{end}" for start in ("so", "ma", "lin", "ter", "o") for end in ("n", "re", "ly", "ted", "s", "")
]

PROSE = (
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of "
    "foolishness, that we have to be with. "
)

# Few letters, so that joined words collide: "ab" "c" and "a" "bc" are the same to the stock repetition rules.
pieces = st.sampled_from(
    ["a", "b", "ab", "ba", "aab", "the", "of", "and", "to", "#", "...", "…", "•", "-", "12", "x1"]
)
separators = st.sampled_from([" ", " ", " ", " ", "\n", "\n\n", "\n\n\n", " \n", "\r\n", "\n- ", "\n• ", "...\n"])
wild_documents = st.lists(st.tuples(pieces, separators), min_size=1, max_size=120).map(
    lambda pairs: "".join(piece + separator for piece, separator in pairs)
)
sentences = st.sampled_from(
    [
        PROSE,
        "A short line.\n",
        "- an item of a list\n",
        "• another item\n",
        "And so it goes on ...\n",
        "# heading\n\n",
        "123 456 789 0\n",
        "the the the the of of of and to be\n",
        "Supercalifragilisticexpialidocious antidisestablishmentarianism floccinaucinihilipilification\n",
    ]
)
prose_documents = st.lists(st.tuples(sentences, st.integers(0, 10_000)), min_size=1, max_size=40).map(
    lambda items: "".join(text.replace("it was", f"it{n % 7} was{n}") for text, n in items)
)
documents = st.one_of(wild_documents, prose_documents)

quality = st.builds(
    GopherQuality,
    min_doc_words=st.integers(1, 60),
    max_doc_words=st.none() | st.integers(1, 300),
    min_avg_word_length=st.none() | st.floats(0.5, 4),
    max_avg_word_length=st.none() | st.floats(2, 10),
    max_symbol_word_ratio=st.none() | st.floats(0.01, 1),
    max_bullet_lines_ratio=st.none() | st.floats(0.01, 1),
    max_ellipsis_lines_ratio=st.none() | st.floats(0.01, 1),
    max_non_alpha_words_ratio=st.none() | st.floats(0.01, 1),
    min_stop_words=st.integers(0, 4),
)
shares = st.none() | st.floats(0.01, 1)
repetition = st.builds(
    GopherRepetition,
    dup_line_frac=shares,
    dup_para_frac=shares,
    dup_line_char_frac=shares,
    dup_para_char_frac=shares,
    top_n_grams=st.lists(st.tuples(st.integers(1, 4), st.floats(0.02, 0.5)), max_size=3).map(tuple),
    dup_n_grams=st.lists(st.tuples(st.integers(2, 10), st.floats(0.02, 0.5)), max_size=4).map(tuple),
)


@settings(max_examples=300, deadline=None)
@given(documents, quality)
@example(PROSE, GopherQuality())
def test_gopher_quality_decides_as_the_stock_block(text: str, rules: GopherQuality) -> None:
    settings = {**dict(rules), "stop_words": list(rules.stop_words)}
    document = Document(text, "id")

    found = FastGopherQuality(**settings, language=TOKENIZER).filter(document)

    assert found == GopherQualityFilter(**settings, language=TOKENIZER).filter(document)


@settings(max_examples=500, deadline=None)
@given(documents, repetition)
@example(" ".join(f"word{i}" for i in range(100)), GopherRepetition())
@example("ab c d e f g h i " * 20 + "a bc d e f g hi j " * 20, GopherRepetition(top_n_grams=()))
def test_gopher_repetition_decides_as_the_stock_block(text: str, rules: GopherRepetition) -> None:
    document = Document(text, "id")

    found = FastGopherRepetition(**dict(rules), language=TOKENIZER).filter(document)

    assert found == GopherRepetitionFilter(**dict(rules), language=TOKENIZER).filter(document)


def test_gopher_repetition_of_clean_prose_never_asks_the_stock_block(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(self: GopherRepetitionFilter, doc: Document) -> bool:
        raise AssertionError("the slow way was taken")

    monkeypatch.setattr(GopherRepetitionFilter, "filter", ask)
    random = Random(0)
    text = "\n".join(" ".join(random.choices(VOCABULARY, k=12)) for _ in range(200))

    assert FastGopherRepetition(language=TOKENIZER).filter(Document(text, "id")) is True


def test_blocks_never_change_a_document() -> None:
    text = "  \n" + PROSE * 3 + "\n\n\n- {a} \t\n"
    for policy in POLICIES.values():
        document = Document(text, "id")
        for block in policy_blocks(policy, TOKENIZER):
            block.filter(document)
        assert document.text == text


def test_policy_blocks_take_every_setting_of_the_policy() -> None:
    policy = Policy(
        length=LengthRules(min_characters=3),
        code=CodeRules(),
        gopher_quality=GopherQuality(min_doc_words=7),
        gopher_repetition=GopherRepetition(dup_line_frac=0.9),
        fineweb_quality=FineWebQuality(short_line_length=11),
    )
    length, code, gopher_quality, gopher_repetition, fineweb = policy_blocks(policy, TOKENIZER)

    assert isinstance(length, LengthFilter)
    assert isinstance(code, CodeFilter)
    assert isinstance(gopher_quality, GopherQualityFilter)
    assert gopher_quality.min_doc_words == 7
    assert isinstance(gopher_repetition, GopherRepetitionFilter)
    assert gopher_repetition.dup_line_frac == 0.9
    assert isinstance(fineweb, FineWebQualityFilter)
    assert fineweb.short_line_length == 11
    assert all(block.language is TOKENIZER for block in (gopher_quality, gopher_repetition, fineweb))


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
    rules = LengthRules(min_characters=4, min_words=3, max_characters=100)

    assert LengthFilter(rules).filter(Document(text, "id")) == expected


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
    assert CodeFilter(CodeRules()).filter(Document(text, "id")) == expected


def test_blocks_work_without_the_spacy_package() -> None:
    program = (
        "import sys; sys.modules['spacy'] = None\n"
        "from datatrove.data import Document\n"
        "from tasks.filter.rules.blocks import policy_blocks\n"
        "from tasks.filter.policies import POLICIES\n"
        "from tasks.filter.words import WhitespaceTokenizer\n"
        "from tasks.filter.signatures import Signer, exact_hash\n"
        f"text = {PROSE!r} * 9\n"
        "for policy in POLICIES.values():\n"
        "    for block in policy_blocks(policy, WhitespaceTokenizer()):\n"
        "        block.filter(Document(text, 'id'))\n"
    )

    subprocess.run([sys.executable, "-c", program], check=True)
