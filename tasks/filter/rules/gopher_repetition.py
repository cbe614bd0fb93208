"""The rules of Gopher about repetition, with a fast way to say yes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from storage.formats.minhash import Hashes
from storage.registry import LazyFunction
from tasks.filter.rules.base import KEEP, Drop, Judgement, RuleConfig
from tasks.filter.rules.stock import StockRule
from tasks.filter.rules.view import DocumentView

if TYPE_CHECKING:
    from tasks.filter.words import DocumentWords

Integers = npt.NDArray[np.int64]

FEWEST_WORDS = 60
"""Below this the stock filter is as fast as numpy."""


class GopherRepetition(RuleConfig):
    """datatrove's GopherRepetitionFilter on whitespace words; null or an empty list switches a bound off.

    Source: Rae et al. 2021, arXiv:2112.11446, table A1. Field names are datatrove's.
    """

    rule: Literal["gopher-repetition"] = "gopher-repetition"
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


class GopherRepetitionRule(StockRule[GopherRepetition]):
    """Keeps a document when upper bounds from the word table show that datatrove's filter keeps it.

    Otherwise that filter is asked, so that every no and its reason come from there.
    """

    config_type = GopherRepetition
    stock = LazyFunction("datatrove.pipeline.filters.gopher_repetition_filter:GopherRepetitionFilter")

    @classmethod
    def examples(cls) -> tuple[GopherRepetition, list[tuple[str, Judgement]]]:
        """Return texts on both sides of the bounds, and of `FEWEST_WORDS`."""
        return GopherRepetition(), [
            ("A cat sat on the mat, while some dog was out in the rain and an owl looked at both of them.", KEEP),
            (" ".join(f"word{number}" for number in range(100)), KEEP),
            ("one\n\none\n\none", Drop("dup_para_frac")),
            ("one\none\none", Drop("dup_line_frac")),
            ("yes no " * 50, Drop("top_2_gram")),
            (" ".join(f"word{number}" for number in range(50)) * 2, Drop("duplicated_5_n_grams")),
        ]

    def judge(self, view: DocumentView) -> Judgement:
        """Look at bounds first, if the document is long enough."""
        if (
            len(view.words) >= FEWEST_WORDS
            and self._lines_pass(view)
            and self._n_grams_pass(view.words, len(view.text))
        ):
            return KEEP
        return super().judge(view)

    def _lines_pass(self, view: DocumentView) -> bool:
        # What the regular expressions of the stock filter split off; those take 13 ms a MB.
        rules, text = self.config, view.text
        if not _few_repeats(view.paragraphs, len(text), rules.dup_para_frac, rules.dup_para_char_frac):
            return False
        lines = [line for line in text.split("\n") if line]
        lines += [""] * (text.startswith("\n") + text.endswith("\n"))
        return _few_repeats(lines, len(text), rules.dup_line_frac, rules.dup_line_char_frac)

    def _n_grams_pass(self, words: "DocumentWords", characters: int) -> bool:
        most = len(words)  # no n-gram is more frequent than the shorter n-gram that it begins with
        for size, share in sorted(self.config.top_n_grams):
            if len(words) < size:
                continue
            lengths = words.ends[size:] - words.ends[:-size] + size - 1  # with the spaces between
            if most * int(lengths.max()) / characters <= share:
                continue
            counts, longest = _distinct_windows(words, size, lengths)
            most = int(counts.max())
            if int((counts * longest).max()) / characters > share:
                return False
        return all(
            _repeated_characters(words, size) / characters <= share
            for size, share in self.config.dup_n_grams
            if len(words) >= size
        )


def _sorted_windows(words: "DocumentWords", size: int) -> tuple[Hashes, np.uint64]:
    """Return the places of all windows of `size` words, sorted by what the windows hold.

    A value has the place in its lower bits and the upper bits of a hash above: one sort instead of an argsort,
    which takes twice as long. When two hashes collide, repeats look more frequent than they are: that costs a
    call of the stock block and never a wrong decision.
    """
    hashes = words.window_hashes(size)
    hashes ^= hashes >> np.uint64(32)
    hashes *= np.uint64(0xD6E8FEB86659FD93)
    place_bound = np.uint64(1 << len(hashes).bit_length())
    hashes &= ~(place_bound - np.uint64(1))
    hashes |= np.arange(len(hashes), dtype=np.uint64)
    hashes.sort()
    return hashes, place_bound


def _distinct_windows(words: "DocumentWords", size: int, lengths: Integers) -> tuple[Integers, Integers]:
    """Return how many windows have each content, and the length of the longest of them."""
    windows, place_bound = _sorted_windows(words, size)
    is_first = np.ones(len(windows) + 1, np.bool_)  # and one behind the end
    is_first[1:-1] = (windows[1:] ^ windows[:-1]) >= place_bound
    starts = np.flatnonzero(is_first)
    places = (windows & (place_bound - np.uint64(1))).astype(np.int64)
    return np.diff(starts), np.maximum.reduceat(lengths[places], starts[:-1])


def _repeated_characters(words: "DocumentWords", size: int) -> int:
    """Return how many characters lie in a window of words that occurred before: the stock rule finds no more."""
    windows, place_bound = _sorted_windows(words, size)
    repeats = windows[1:][(windows[1:] ^ windows[:-1]) < place_bound]
    if not len(repeats):
        return 0
    places = np.sort((repeats & (place_bound - np.uint64(1))).astype(np.int64))
    starts, ends = words.ends[places], words.ends[places + size]
    starts[1:] = np.maximum(starts[1:], ends[:-1])
    return int((ends - starts).sum())


def _few_repeats(
    units: Sequence[str], characters: int, share: float | None, character_share: float | None
) -> bool:
    distinct = set(units)
    repeats = len(units) - len(distinct)
    if not repeats:
        return True
    if share and repeats / len(units) > share:
        return False
    repeated_characters = sum(map(len, units)) - sum(map(len, distinct))
    return not character_share or repeated_characters / characters <= character_share
