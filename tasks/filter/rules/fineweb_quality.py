"""The rule of FineWeb about text extracted from web pages."""

from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import Field

from tasks.filter.rules.base import EMPTY, KEEP, Drop, Judgement, Measure, Rule, RuleConfig, first_broken
from tasks.filter.rules.places import Place, occurrences, pieces, repeats
from tasks.filter.rules.view import DocumentView


class FineWebQuality(RuleConfig):
    """datatrove's FineWebQualityFilter: does it look like text and not like the navigation of a web page?

    Source: Penedo et al. 2024, arXiv:2406.17557, section 3.6. Field names are datatrove's.
    """

    rule: Literal["fineweb-quality"] = "fineweb-quality"
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


class FineWebQualityRule(Rule[FineWebQuality]):
    """Decides as datatrove's filter does, with its reasons."""

    config_type = FineWebQuality

    @classmethod
    def examples(cls) -> tuple[FineWebQuality, list[tuple[str, Judgement]]]:
        """Return one text for each bound."""
        sentences = [
            f"The {word} sentence is longer than thirty characters." for word in ("first", "second", "last")
        ]
        return FineWebQuality(), [
            ("\n".join(sentences), KEEP),
            ("", Drop(EMPTY)),
            ("\n".join(line.rstrip(".") for line in sentences), Drop("line_punct_ratio")),
            ("Home.\nNews.\nContact.\n", Drop("short_line_ratio")),
            ("\n".join(sentences + sentences), Drop("char_dup_ratio")),
            ("\n".join(f"{letter * 40}." for letter in "abc"), Drop("list_ratio")),
        ]

    def judge(self, view: DocumentView) -> Judgement:
        """Look at the ends and lengths of lines, at repeated lines, then at lines per word."""
        return first_broken(self.measures(view))

    def measures(self, view: DocumentView) -> Iterator[Measure]:
        """Yield shares of lines, then of characters, then lines per word."""
        rules, words, lines = self.config, view.words, view.words.lines
        if not lines.written:
            yield Measure(EMPTY, 0, 1, is_least=True)
            return
        yield Measure("line_punct_ratio", lines.ended / lines.written, rules.line_punct_thr, is_least=True)
        short = words.short_lines(rules.short_line_length) / lines.written
        yield Measure("short_line_ratio", short, rules.short_line_thr)
        repeated = lines.written_repeated_characters / (len(view.text) - lines.feeds)
        yield Measure("char_dup_ratio", repeated, rules.char_duplicates_ratio)
        yield Measure("list_ratio", lines.feeds / len(words), rules.new_line_ratio)

    def places(self, view: DocumentView, drop: Drop) -> Sequence[Place]:
        """Return the ends of lines that have no punctuation mark, short lines, repeated lines, or line breaks."""
        text = view.text
        lines = [(begin, end) for begin, end in pieces(text, "\n") if text[begin:end].strip()]
        match drop.reason:
            case "line_punct_ratio":
                return _open_ends(text, lines)
            case "short_line_ratio":
                return [(begin, end) for begin, end in lines if end - begin <= self.config.short_line_length]
            case "char_dup_ratio":
                return list(repeats(text, lines))
            case "list_ratio":
                return occurrences(text, "\n")
        return ()


def _open_ends(text: str, lines: Sequence[Place]) -> list[Place]:
    """Return the last word of each line that does not end with a punctuation mark, and the blanks behind it."""
    from datatrove.utils.text import TERMINAL_PUNCTUATION  # noqa: PLC0415 - datatrove, not needed for planning

    open_lines = [(begin, end) for begin, end in lines if text[end - 1] not in TERMINAL_PUNCTUATION]
    return [(end - len(_last_word(text[begin:end])), end) for begin, end in open_lines]


def _last_word(line: str) -> str:
    last = line.split()[-1]
    return line[line.rindex(last) :]
