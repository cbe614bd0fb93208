"""The rules of Gopher about repetition."""

import re
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from pydantic import Field, model_validator

from tasks.filter.rules.base import EMPTY, KEEP, Drop, Judgement, Measure, Rule, RuleConfig, first_broken
from tasks.filter.rules.places import Place, merged, most_frequent, paragraphs, pieces, repeated_runs, repeats
from tasks.filter.rules.view import DocumentView


class GopherRepetition(RuleConfig):
    """datatrove's GopherRepetitionFilter on whitespace words; null or an empty list switches a bound off.

    Source: Rae et al. 2021, arXiv:2112.11446, table A1. Field names are datatrove's but for `blank_lines`.
    """

    rule: Literal["gopher-repetition"] = "gopher-repetition"
    dup_line_frac: float | None = Field(default=0.3, gt=0)
    """Largest share of lines that repeat an earlier line."""
    blank_lines: bool = True
    """Whether lines of nothing but white space count as lines that repeat each other. They do for datatrove."""
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


class GopherRepetitionRule(Rule[GopherRepetition]):
    """Decides as datatrove's filter does, with its reasons."""

    config_type = GopherRepetition

    @classmethod
    def examples(cls) -> tuple[GopherRepetition, list[tuple[str, Judgement]]]:
        """Return texts on both sides of the bounds."""
        return GopherRepetition(), [
            ("A cat sat on the mat, while some dog was out in the rain and an owl looked at both of them.", KEEP),
            (" ".join(f"word{number}" for number in range(100)), KEEP),
            ("", Drop(EMPTY)),
            ("one\n\none\n\none", Drop("dup_para_frac")),
            ("one\none\none", Drop("dup_line_frac")),
            ("yes no " * 50, Drop("top_2_gram")),
            (" ".join(f"word{number}" for number in range(50)) * 2, Drop("duplicated_5_n_grams")),
        ]

    def judge(self, view: DocumentView) -> Judgement:
        """Look at paragraphs, at lines, at the most frequent n-grams, then at repeated ones."""
        return first_broken(self._measures(view, in_full=False))

    def measures(self, view: DocumentView) -> Iterator[Measure]:
        """Yield shares of paragraphs, of lines, of the most frequent n-grams, then of repeated ones."""
        return self._measures(view, in_full=True)

    def _measures(self, view: DocumentView, *, in_full: bool) -> Iterator[Measure]:
        """Yield them all, or for a judgement alone not those that a quick look shows to be within their bound."""
        if not view.text:
            yield Measure(EMPTY, 0, 1, is_least=True)
            return
        yield from self._by_lines(view)
        yield from self._by_frequent(view, in_full)
        yield from self._by_repeated(view)

    def _by_lines(self, view: DocumentView) -> Iterator[Measure]:
        rules, text, characters = self.config, view.text, len(view.text)
        paragraphs, lines = view.words.paragraphs, view.words.lines
        units = _Units(max(paragraphs.paragraphs, 1), paragraphs.repeated, paragraphs.repeated_characters)
        yield from _repeats(units, characters, rules.dup_para_frac, rules.dup_para_char_frac, "dup_para")
        units = _Units(lines.written, lines.written_repeated, lines.written_repeated_characters)
        if rules.blank_lines:
            # What the regular expressions of the stock filter split off, which take 13 ms a MB: an empty line more
            # where the text begins with a line feed, and where it ends with one.
            around = text.startswith("\n") + text.endswith("\n")
            units = _Units(lines.lines + around, lines.repeated + (around == 2), lines.repeated_characters)
        yield from _repeats(units, characters, rules.dup_line_frac, rules.dup_line_char_frac, "dup_line")

    def _by_frequent(self, view: DocumentView, in_full: bool) -> Iterator[Measure]:
        words, characters = view.words, len(view.text)
        at_most, counted = len(words), 0
        for size, most in self.config.top_n_grams:
            if size < counted:
                at_most = len(words)
            if not in_full and at_most * words.longest(size) / characters <= most:
                continue
            count, length = words.most_frequent(size)
            yield Measure(f"top_{size}_gram", count * length / characters, most)
            at_most, counted = count, size  # no n-gram is more frequent than a shorter one that it begins with

    def _by_repeated(self, view: DocumentView) -> Iterator[Measure]:
        for size, most in self.config.dup_n_grams:
            share = view.words.repeated_letters(size) / len(view.text)
            yield Measure(f"duplicated_{size}_n_grams", share, most)

    def places(self, view: DocumentView, drop: Drop) -> Sequence[Place]:
        """Return the repeats of paragraphs, lines or runs of words, or each place of the most frequent run."""
        text, number = view.text, re.search(r"\d+", drop.reason)
        if drop.reason.startswith("dup_para_"):
            return merged(repeats(text, paragraphs(text)))
        if drop.reason.startswith("dup_line_"):
            return merged(repeats(text, pieces(text, "\n")))
        if number is None:
            return ()
        if drop.reason.startswith("top_"):
            return most_frequent(text, int(number[0]))
        runs = repeated_runs(text, int(number[0]))
        return merged((run[0][0], run[-1][1]) for run in runs)


class _Units(NamedTuple):
    """Lines or paragraphs."""

    total: int
    repeated: int
    repeated_characters: int


def _repeats(
    units: _Units, characters: int, most: float | None, most_characters: float | None, name: str
) -> Iterator[Measure]:
    if most:
        yield Measure(f"{name}_frac", units.repeated / units.total if units.total else 0.0, most)
    if most_characters:
        yield Measure(f"{name}_char_frac", units.repeated_characters / characters, most_characters)
