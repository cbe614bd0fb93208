"""The rules of Gopher about the quality of running text, from numbers about all words at once."""

from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import Field

from tasks.filter.rules.base import KEEP, Drop, Judgement, Measure, Rule, RuleConfig, first_broken
from tasks.filter.rules.places import MOST_PLACES, Place, lines, occurrences, words
from tasks.filter.rules.view import DocumentView


class GopherQuality(RuleConfig):
    """datatrove's GopherQualityFilter on whitespace words; null switches a bound off. Is it running text?

    Source: Rae et al. 2021, arXiv:2112.11446, table A1. Field names are datatrove's.
    """

    rule: Literal["gopher-quality"] = "gopher-quality"
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


class GopherQualityRule(Rule[GopherQuality]):
    """Decides as datatrove's filter does, with its reasons."""

    config_type = GopherQuality

    @classmethod
    def examples(cls) -> tuple[GopherQuality, list[tuple[str, Judgement]]]:
        """Return one text for each bound."""
        prose = "The cat and the dog sat on the mat, and then they had to be off. "
        return GopherQuality(min_doc_words=5, max_doc_words=60), [
            (prose, KEEP),
            ("The cat and", Drop("gopher_short_doc")),
            (prose * 5, Drop("gopher_long_doc")),
            ("a b c d e f g", Drop("gopher_below_avg_threshold")),
            ("antidisestablishmentarianism " * 5, Drop("gopher_above_avg_threshold")),
            (prose + "# " * 5, Drop("gopher_too_many_hashes")),
            (prose + "... " * 5, Drop("gopher_too_many_ellipsis")),
            ("- the words\n- and lists\n- that have\n- dashes with", Drop("gopher_too_many_bullets")),
            (f"{prose}\nof ...", Drop("gopher_too_many_end_ellipsis")),
            ("100 200 300 400 the", Drop("gopher_below_alpha_threshold")),
            ("One two three four five six seven", Drop("gopher_enough_stop_words")),
        ]

    def judge(self, view: DocumentView) -> Judgement:
        """Look at words, then at lines, then at letters and stop words."""
        return first_broken(self._measures(view, in_full=False))

    def measures(self, view: DocumentView) -> Iterator[Measure]:
        """Yield numbers about words, then about lines, then about letters and stop words."""
        return self._measures(view, in_full=True)

    def _measures(self, view: DocumentView, *, in_full: bool) -> Iterator[Measure]:
        """Yield them all, or for a judgement alone not those that a quick look shows to be within their bound."""
        yield from self._by_lengths(view)
        if len(view.words):
            yield from self._by_marks(view, in_full)
            yield from self._by_letters(view, in_full)

    def _by_lengths(self, view: DocumentView) -> Iterator[Measure]:
        rules = self.config
        counts = view.words.counts
        yield Measure("gopher_short_doc", counts.spoken, rules.min_doc_words, is_least=True)
        if rules.max_doc_words:
            yield Measure("gopher_long_doc", counts.spoken, rules.max_doc_words)
        if not counts.spoken:
            return
        mean = counts.spoken_characters / counts.spoken
        if rules.min_avg_word_length:
            yield Measure("gopher_below_avg_threshold", mean, rules.min_avg_word_length, is_least=True)
        if rules.max_avg_word_length:
            yield Measure("gopher_above_avg_threshold", mean, rules.max_avg_word_length)

    def _by_marks(self, view: DocumentView, in_full: bool) -> Iterator[Measure]:
        words, facts = len(view.words), view.words.lines
        most = self.config.max_symbol_word_ratio
        if most:
            yield Measure("gopher_too_many_hashes", facts.hashes / words, most)
            yield Measure("gopher_too_many_ellipsis", facts.ellipses / words, most)
        most_bullets, most_ellipses = self.config.max_bullet_lines_ratio, self.config.max_ellipsis_lines_ratio
        lines = facts.all_lines
        # A line that begins with a bullet has one in it, so most texts need no look at their lines.
        if most_bullets and (in_full or facts.dashes / lines > most_bullets):
            bullets = sum(line.lstrip().startswith(("•", "-")) for line in view.lines) / lines
            yield Measure("gopher_too_many_bullets", bullets, most_bullets)
        if most_ellipses and (in_full or facts.ellipses / lines > most_ellipses):
            ended = sum(line.rstrip().endswith(("...", "…")) for line in view.lines) / lines
            yield Measure("gopher_too_many_end_ellipsis", ended, most_ellipses)

    def _by_letters(self, view: DocumentView, in_full: bool) -> Iterator[Measure]:
        rules = self.config
        if rules.max_non_alpha_words_ratio:
            lettered = view.words.counts.lettered / len(view.words)
            yield Measure("gopher_below_alpha_threshold", lettered, rules.max_non_alpha_words_ratio, is_least=True)
        found = 0
        for word in dict.fromkeys(rules.stop_words):
            if found >= rules.min_stop_words and not in_full:
                return
            found += word in view.words
        if rules.min_stop_words:
            yield Measure("gopher_enough_stop_words", found, rules.min_stop_words, is_least=True)

    def places(self, view: DocumentView, drop: Drop) -> Sequence[Place]:
        """Return the words or marks that count against the text; none of what is missing, as stop words are."""
        text = view.text
        match drop.reason:
            case "gopher_below_avg_threshold" | "gopher_above_avg_threshold":
                return self._odd_words(view, long=drop.reason == "gopher_above_avg_threshold")
            case "gopher_too_many_hashes":
                return occurrences(text, "#")
            case "gopher_too_many_ellipsis":
                return occurrences(text, "...", "…")
            case "gopher_too_many_bullets":
                starts = [(end - len(text[begin:end].lstrip()), end) for begin, end in lines(text)]
                return [(begin, end) for begin, end in starts if text[begin:end].startswith(("•", "-"))]
            case "gopher_too_many_end_ellipsis":
                ends = [(begin, begin + len(text[begin:end].rstrip())) for begin, end in lines(text)]
                return [
                    (end - (1 if text[end - 1] == "…" else 3), end)
                    for begin, end in ends
                    if text[begin:end].endswith(("...", "…"))
                ]
            case "gopher_below_alpha_threshold":
                pairs = zip(words(text), view.words.have_letter, strict=True)
                return [place for place, has_letter in pairs if not has_letter][:MOST_PLACES]
        return ()

    def _odd_words(self, view: DocumentView, *, long: bool) -> Sequence[Place]:
        """Return the words that are longer, or shorter, than words may be on average; of many the oddest."""
        pairs = zip(words(view.text), view.words.only_marks, strict=True)
        sizes = [(end - begin, begin) for (begin, end), only_marks in pairs if not only_marks]
        bound = (self.config.max_avg_word_length if long else self.config.min_avg_word_length) or 0
        odd = [(size, begin) for size, begin in sizes if (size > bound if long else size < bound)]
        odd.sort(key=lambda word: (-word[0] if long else word[0], word[1]))
        return sorted((begin, begin + size) for size, begin in odd[:MOST_PLACES])
