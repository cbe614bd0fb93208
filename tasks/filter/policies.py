"""Which documents of which subset are kept: policies as data, and the defaults for corpora that we know.

Only data, quick to import: `tasks.filter.rules.blocks` makes filter blocks of a policy.
"""

from pydantic import Field, model_validator

from storage.config import Config


class LengthRules(Config):
    """How long a document may be. A document of nothing but white space is dropped always."""

    min_characters: int = Field(default=1, ge=1)
    """Shorter documents are dropped (`too-short`), surrounding white space not counted."""
    min_words: int = Field(default=1, ge=1)
    """Documents with fewer words between white space are dropped (`too-few-words`)."""
    max_characters: int | None = Field(default=None, ge=1)
    """Longer documents are dropped (`too-long`)."""

    @model_validator(mode="after")
    def _possible(self) -> "LengthRules":
        if self.max_characters is not None and self.max_characters < self.min_characters:
            raise ValueError(
                f"max_characters must be at least min_characters={self.min_characters}, "
                f"found {self.max_characters}; no document could be kept"
            )
        return self


class GopherQuality(Config):
    """datatrove's GopherQualityFilter on whitespace words; null switches a rule off.

    Source: Rae et al. 2021, arXiv:2112.11446, table A1. Field names are datatrove's.
    """

    min_doc_words: int = Field(default=50, ge=1)
    """Fewest words that are more than punctuation."""
    max_doc_words: int | None = Field(default=100_000, ge=1)
    """Most words; null for books."""
    min_avg_word_length: float | None = Field(default=3.0, gt=0)
    """Fewest characters per word, on average."""
    max_avg_word_length: float | None = Field(default=10.0, gt=0)
    """Most characters per word, on average."""
    max_symbol_word_ratio: float | None = Field(default=0.1, gt=0)
    """Most `#` per word, and most ellipses per word."""
    max_bullet_lines_ratio: float | None = Field(default=0.9, gt=0, le=1)
    """Largest share of lines that begin with a bullet or a dash."""
    max_ellipsis_lines_ratio: float | None = Field(default=0.3, gt=0, le=1)
    """Largest share of lines that end with an ellipsis."""
    max_non_alpha_words_ratio: float | None = Field(default=0.8, gt=0, le=1)
    """Smallest share of words with a letter in them; datatrove's name says the opposite of what it does."""
    min_stop_words: int = Field(default=2, ge=0)
    """How many different stop words must occur; 0 for text that need not be English."""
    stop_words: tuple[str, ...] = ("the", "be", "to", "of", "and", "that", "have", "with")
    """The stop words, in lower case; matched exactly."""


class GopherRepetition(Config):
    """datatrove's GopherRepetitionFilter on whitespace words; null or an empty list switches a rule off.

    Source: Rae et al. 2021, arXiv:2112.11446, table A1. Field names are datatrove's.
    """

    dup_line_frac: float | None = Field(default=0.3, gt=0)
    """Largest share of lines that repeat an earlier line."""
    dup_para_frac: float | None = Field(default=0.3, gt=0)
    """Largest share of paragraphs that repeat an earlier one."""
    dup_line_char_frac: float | None = Field(default=0.2, gt=0)
    """Largest share of characters in repeated lines."""
    dup_para_char_frac: float | None = Field(default=0.2, gt=0)
    """Largest share of characters in repeated paragraphs."""
    top_n_grams: tuple[tuple[int, float], ...] = ((2, 0.2), (3, 0.18), (4, 0.16))
    """(n, largest share of characters in the most frequent n-gram)."""
    dup_n_grams: tuple[tuple[int, float], ...] = (
        (5, 0.15),
        (6, 0.14),
        (7, 0.13),
        (8, 0.12),
        (9, 0.11),
        (10, 0.10),
    )
    """(n, largest share of characters in repeated n-grams)."""

    @model_validator(mode="after")
    def _possible(self) -> "GopherRepetition":
        for size, share in (*self.top_n_grams, *self.dup_n_grams):
            if size < 1 or share <= 0:
                raise ValueError(f"an n-gram rule must be (n >= 1, share > 0), found ({size}, {share})")
        return self


class FineWebQuality(Config):
    """datatrove's FineWebQualityFilter, for text extracted from web pages.

    Source: Penedo et al. 2024, arXiv:2406.17557, section 3.6. Field names are datatrove's.
    """

    line_punct_thr: float = Field(default=0.12, ge=0, le=1)
    """Smallest share of lines that end with a punctuation mark."""
    short_line_thr: float = Field(default=0.67, ge=0, le=1)
    """Largest share of short lines."""
    short_line_length: int = Field(default=30, ge=0)
    """Up to this many characters a line is short."""
    char_duplicates_ratio: float = Field(default=0.01, ge=0)
    """Largest share of characters in repeated lines."""
    new_line_ratio: float = Field(default=0.3, ge=0)
    """Most line breaks per word."""


class CodeRules(Config):
    """Rules for program source: minified, generated and binary-like files go.

    Source: StarCoder, Li et al. 2023, arXiv:2305.06161, section 3.1.
    """

    max_line_characters: int = Field(default=1000, ge=1)
    """Longest line allowed (`long-line`)."""
    max_mean_line_characters: float = Field(default=100.0, gt=0)
    """Largest mean length of the lines (`long-mean-line`)."""
    min_alphanumeric_fraction: float = Field(default=0.25, ge=0, le=1)
    """Smallest share of letters and digits among all characters (`low-alphanumeric`)."""
    generated_markers: tuple[str, ...] = (
        "auto-generated",
        "autogenerated",
        "automatically generated",
        "generated automatically",
        "this file is generated",
        "do not edit",
    )
    """Files that say so in their first lines are dropped (`autogenerated`); compared without case."""
    generated_marker_lines: int = Field(default=5, ge=0)
    """In how many first lines a marker is looked for."""


class Policy(Config):
    """What is asked of the documents of a subset; the rules are tried in the order of these fields."""

    length: LengthRules = LengthRules()
    """Bounds on the size of a document."""
    code: CodeRules | None = None
    """Rules for program source."""
    gopher_quality: GopherQuality | None = None
    """Does it look like running text?"""
    gopher_repetition: GopherRepetition | None = None
    """Does it repeat itself?"""
    fineweb_quality: FineWebQuality | None = None
    """Does it look like text and not like the navigation of a web page?"""
    minhash: bool = True
    """Look for near duplicates. Off for templated text, in which everything resembles everything."""


WITHOUT_LINES = GopherRepetition(
    dup_line_frac=None, dup_para_frac=None, dup_line_char_frac=None, dup_para_char_frac=None
)
"""In dialogues and reference text short lines come back: `Yes.`, `Returns:`."""

# The figures behind these choices: shares of documents kept per subset and block, with whitespace words, were
# 0.98 (Gopher quality on manual pages), 0.47 (TeX, source code), 0.00 (templated mathematics); Gopher repetition
# 0.62 (mathematics) to 1.0 (books); FineWeb quality 0.66 (web pages) and below 0.1 nearly everywhere else.
POLICIES: dict[str, Policy] = {
    "web": Policy(
        gopher_quality=GopherQuality(), gopher_repetition=GopherRepetition(), fineweb_quality=FineWebQuality()
    ),
    "prose": Policy(gopher_quality=GopherQuality(min_doc_words=20), gopher_repetition=GopherRepetition()),
    "multilingual": Policy(
        gopher_quality=GopherQuality(min_stop_words=0, max_avg_word_length=14),
        gopher_repetition=GopherRepetition(),
    ),
    "books": Policy(gopher_quality=GopherQuality(max_doc_words=None), gopher_repetition=GopherRepetition()),
    "papers": Policy(
        gopher_quality=GopherQuality(
            max_doc_words=None, min_avg_word_length=2, max_avg_word_length=15, max_non_alpha_words_ratio=0.5
        )
    ),
    "law": Policy(
        gopher_quality=GopherQuality(
            min_doc_words=20, max_doc_words=None, max_avg_word_length=15, max_non_alpha_words_ratio=0.6
        )
    ),
    "chat": Policy(length=LengthRules(min_words=20), gopher_repetition=WITHOUT_LINES),
    "reference": Policy(
        gopher_quality=GopherQuality(
            min_doc_words=10,
            max_avg_word_length=20,
            max_symbol_word_ratio=0.2,
            max_non_alpha_words_ratio=0.5,
            min_stop_words=1,
        ),
        gopher_repetition=WITHOUT_LINES,
    ),
    "code": Policy(length=LengthRules(min_characters=50), code=CodeRules()),
    "synthetic": Policy(minhash=False),
    "mild": Policy(
        length=LengthRules(min_words=5),
        gopher_repetition=GopherRepetition(
            dup_line_frac=0.6,
            dup_para_frac=0.6,
            dup_line_char_frac=0.6,
            dup_para_char_frac=0.6,
            top_n_grams=(),
            dup_n_grams=((10, 0.6),),
        ),
    ),
}
"""Policies by name. `mild` is for subsets that nobody has judged: only what repeats itself beyond doubt goes."""

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
