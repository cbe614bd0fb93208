"""Which documents of which subset are kept: policies as data, and the defaults for corpora that we know."""

from typing import Any

from storage.config import Config
from tasks.filter.rules.base import RuleConfig
from tasks.filter.rules.registry import AnyRuleConfig, rule_config


class Policy(Config):
    """What is asked of the documents of a subset. One of nothing but white space is dropped always."""

    rules: tuple[AnyRuleConfig, ...] = ()
    """The rules in the order in which they are asked; the first that drops a document decides."""
    near_duplicates: bool = True
    """Look for near duplicates. Off for templated text, in which everything resembles everything; exact duplicates
    and what holds held-out text are found all the same."""
    keep_numbers: bool = False
    """Take numbers for the words that they are when documents are compared; otherwise all are the same one."""


def _quality(**fields: float | None) -> RuleConfig:
    return rule_config("gopher-quality", **fields)


def _repetition(**fields: Any) -> RuleConfig:
    # Between the paragraphs of some sources stands a blank, and a third of their lines would be one that repeats.
    return rule_config("gopher-repetition", **{"blank_lines": False, **fields})


WITHOUT_LINES = _repetition(
    dup_line_frac=None, dup_para_frac=None, dup_line_char_frac=None, dup_para_char_frac=None
)
"""In dialogues short lines come back: `Yes.`"""
REPEATED = _repetition(
    dup_line_frac=None,
    dup_para_frac=None,
    dup_line_char_frac=0.8,
    dup_para_char_frac=0.8,
    top_n_grams=(),
    dup_n_grams=((10, 0.64),),
)
"""Most of the text stands there several times; up to 0.7 is common where things that are alike are described. What
stands there eight times has 0.65 of all characters in repeated n-grams: blanks and the first do not count. The
number of lines says less: specifications, statutes with tables and listings have many that are `},` or a number.
"""
DESCRIBED = _repetition(
    dup_line_frac=None,
    dup_para_frac=None,
    dup_line_char_frac=None,
    dup_para_char_frac=None,
    top_n_grams=((2, 0.4), (3, 0.35), (4, 0.3)),
    dup_n_grams=((5, 0.6), (10, 0.5)),
)
"""A third of the pages that describe the functions of a library describe the same parameter several times: among
them 0.15 to 0.5 of the characters stand in repeated runs of five words."""
PLAIN = rule_config("plain-text")

# The figures behind these choices: shares of documents kept per subset and block, with whitespace words, were
# 0.98 (Gopher quality on manual pages), 0.47 (TeX, source code), 0.00 (templated mathematics); Gopher repetition
# 0.62 (mathematics) to 1.0 (books); FineWeb quality 0.66 (web pages) and below 0.1 nearly everywhere else.
POLICIES: dict[str, Policy] = {
    "web": Policy(rules=(_quality(), _repetition(), rule_config("fineweb-quality"))),
    "prose": Policy(rules=(_quality(min_doc_words=20), _repetition())),
    "multilingual": Policy(rules=(_quality(min_stop_words=0, max_avg_word_length=14.0), PLAIN, _repetition())),
    "books": Policy(rules=(_quality(max_doc_words=None), _repetition())),
    "papers": Policy(
        rules=(
            _quality(
                max_doc_words=None,
                min_avg_word_length=2.0,
                max_avg_word_length=15.0,
                max_non_alpha_words_ratio=0.5,
            ),
            PLAIN,
            REPEATED,
        )
    ),
    "law": Policy(
        rules=(
            _quality(
                min_doc_words=20, max_doc_words=None, max_avg_word_length=15.0, max_non_alpha_words_ratio=0.6
            ),
            PLAIN,
            REPEATED,
        )
    ),
    "chat": Policy(rules=(rule_config("length", min_words=20), PLAIN, WITHOUT_LINES)),
    "reference": Policy(
        rules=(
            _quality(
                min_doc_words=10,
                max_avg_word_length=40.0,
                max_symbol_word_ratio=0.2,
                max_non_alpha_words_ratio=0.3,
                min_stop_words=1,
            ),
            PLAIN,
            DESCRIBED,
        )
    ),
    "code": Policy(
        rules=(
            rule_config("length", min_characters=50),
            rule_config("code"),
            rule_config("plain-text", min_letters=0.25, max_filler=None),
        )
    ),
    "synthetic": Policy(near_duplicates=False, keep_numbers=True),
    "mild": Policy(rules=(rule_config("length", min_words=3), PLAIN, REPEATED)),
}
"""Policies by name. `mild` is for subsets that nobody has judged: what is no text, or repeats itself, beyond doubt
goes."""

SUBSETS: dict[str, str] = {
    # The Pile, Gao et al. 2020, arXiv:2101.00027
    "ArXiv": "papers",
    "BookCorpus2": "books",
    "Books3": "books",
    "DM Mathematics": "synthetic",
    "Enron Emails": "chat",
    "EuroParl": "multilingual",
    "FreeLaw": "law",
    "Github": "code",
    "Gutenberg (PG-19)": "books",
    "HackerNews": "prose",
    "NIH ExPorter": "prose",
    "OpenSubtitles": "chat",
    "OpenWebText2": "web",
    "PhilPapers": "papers",
    "Pile-CC": "web",
    "PubMed Abstracts": "prose",
    "PubMed Central": "papers",
    "StackExchange": "prose",
    "USPTO Backgrounds": "law",
    "Ubuntu IRC": "chat",
    "Wikipedia (en)": "prose",
    "YoutubeSubtitles": "chat",
    # what an installation of Python carries
    "Licences": "law",
    "Package Descriptions": "reference",
    "Python Docstrings": "reference",
    "Python Packages (source)": "code",
    "Python Standard Library (source)": "code",
}
"""Subset -> name of its policy."""
