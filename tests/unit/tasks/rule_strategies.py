"""Documents and configs of rules for property tests."""

from hypothesis import strategies as st

from tasks.filter.rules.code import Code
from tasks.filter.rules.fineweb_quality import FineWebQuality
from tasks.filter.rules.gopher_quality import GopherQuality
from tasks.filter.rules.gopher_repetition import GopherRepetition
from tasks.filter.rules.length import Length
from tasks.filter.rules.plain_text import PlainText

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
fineweb = st.builds(
    FineWebQuality,
    line_punct_thr=st.floats(0, 0.5),
    short_line_thr=st.floats(0.3, 1),
    short_line_length=st.integers(0, 40),
    char_duplicates_ratio=st.floats(0, 0.6),
    new_line_ratio=st.floats(0, 1),
)
code = st.builds(
    Code,
    max_line_characters=st.integers(1, 60),
    max_mean_line_characters=st.floats(1, 60),
    min_alphanumeric_fraction=st.floats(0, 1),
)
lengths = st.builds(
    Length,
    min_characters=st.integers(1, 60),
    min_words=st.integers(1, 20),
    max_characters=st.none() | st.integers(60, 300),
)
plain = st.builds(
    PlainText,
    min_letters=shares,
    max_alternations=shares,
    max_single_letters=shares,
    min_different_words=st.none() | st.floats(0.1, 8),
    max_misread=shares,
    max_controls=shares,
)
