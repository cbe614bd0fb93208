"""The rule against what is no text for people: dumps, blobs, link lists, wrongly decoded and filler text."""

import math
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Literal

from pydantic import Field

from tasks.filter.rules.base import KEEP, Drop, Judgement, Measure, Rule, RuleConfig, first_broken
from tasks.filter.rules.places import Place, merged, words
from tasks.filter.rules.view import DocumentView

LINK = re.compile(r"https?://\S+")
FILLER = frozenset(
    """ad adipiscing aliqua aliquip amet anim aute cillum commodo consectetur consequat culpa cupidatat deserunt do
    dolor dolore duis ea eiusmod elit enim esse est et eu ex excepteur exercitation fugiat id in incididunt ipsum
    irure labore laboris laborum lorem magna minim mollit nisi non nostrud nulla occaecat officia pariatur
    proident qui quis reprehenderit sed sint sit sunt tempor ullamco ut velit veniam voluptate
    """.split()  # noqa: SIM905 - a list of sixty strings is none to read
)
"""The words of the usual Lorem ipsum."""
MISREAD = re.compile(r"[\xc2-\xf4](?!\s)[\x80-\xbf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]")
CONTROLS = re.compile(r"(?!\s)[\x00-\x1f\x7f-\x9f\ufffd\ue000-\uf8ff]")
IDEOGRAPHS = "\u2e80"
"""From here on a word may well be one character."""
WINDOW = 300
"""Words among which different ones are counted: enough for stuffing to show, and few to compare."""
FEW = 30
"""With fewer words none needs to occur twice."""


class PlainText(RuleConfig):
    """What is no text in any language; null switches a bound off. White space is not counted among characters."""

    rule: Literal["plain-text"] = "plain-text"
    min_letters: float | None = Field(default=0.15, gt=0, le=1)
    """Smallest share of letters among all characters (`few-letters`): numbers, symbols."""
    max_alternations: float | None = Field(default=0.2, gt=0, le=1)
    """Largest share of places where a letter and a digit meet (`alternating`): hexadecimal and base64 dumps."""
    max_single_letters: float | None = Field(default=0.5, gt=0, le=1)
    """Largest share of words that are one letter (`single-letters`): s p a c e d text."""
    min_different_words: float | None = Field(default=1.3, gt=0)
    """Fewest different words among the first 300, divided by the root of their number
    (`few-different-words`): the same keywords over and over, in any order."""
    max_links: float | None = Field(default=0.85, gt=0, le=1)
    """Largest share of characters in addresses (`links`)."""
    max_misread: float | None = Field(default=0.02, gt=0, le=1)
    """Largest share of places where bytes of UTF-8 were read one by one (`misread`): `Ã©` for `é`."""
    max_controls: float | None = Field(default=0.02, gt=0, le=1)
    """Largest share of control, private and replacement characters (`controls`): no text, or read wrongly."""
    max_filler: float | None = Field(default=0.3, gt=0, le=1)
    """Largest share of words of Lorem ipsum, where it occurs (`filler`)."""


class PlainTextRule(Rule[PlainText]):
    """Drops what nobody reads, in any writing system."""

    config_type = PlainText

    @classmethod
    def examples(cls) -> tuple[PlainText, list[tuple[str, Judgement]]]:
        """Return one text for each bound."""
        prose = "The cat sat on the mat, and 9 dogs of the house at www.example.org looked at it."
        return PlainText(), [
            (prose, KEEP),
            ("Кошка сидела на ковре.", KEEP),
            ("小猫坐在垫子上。", KEEP),
            ("1 2 3 + 4 5 6 = 7 8 9 a", Drop("few-letters")),
            ("a0f3 77de 3fa9 c01d 9b2e 5ac4", Drop("alternating")),
            ("t h e c a t s a t o n t h e m a t", Drop("single-letters")),
            ("cheap shoes online " * 20, Drop("few-different-words")),
            ("http://example.org/news\nhttps://example.org/about", Drop("links")),
            ("Кошка сидела на ковре.".encode().decode("latin-1"), Drop("misread")),
            ("The c\ufffdt s\ufffdt on the mat.", Drop("controls")),
            ("Lorem ipsum dolor sit amet, consectetur adipiscing elit.", Drop("filler")),
        ]

    def judge(self, view: DocumentView) -> Judgement:
        """Look at characters, then at words."""
        return first_broken(self.measures(view))

    def measures(self, view: DocumentView) -> Iterator[Measure]:
        """Yield shares of characters, then of words."""
        if not len(view.words):
            return
        yield from self._by_characters(view)
        yield from self._by_words(view)

    def _by_characters(self, view: DocumentView) -> Iterator[Measure]:
        rules, characters, counts = self.config, len(view.words.letters), view.words.character_counts()
        if rules.min_letters:
            yield Measure("few-letters", counts.letters / characters, rules.min_letters, is_least=True)
        if rules.max_alternations:
            yield Measure("alternating", counts.alternations / characters, rules.max_alternations)
        if rules.max_misread:
            yield Measure("misread", counts.misread / characters, rules.max_misread)
        if rules.max_controls:
            yield Measure("controls", counts.controls / characters, rules.max_controls)
        if rules.max_single_letters:
            yield Measure("single-letters", counts.single_letters / len(view.words), rules.max_single_letters)

    def _by_words(self, view: DocumentView) -> Iterator[Measure]:
        rules, first = self.config, view.words.normalised[:WINDOW]
        if rules.min_different_words and len(first) >= FEW:
            different = len(set(first.tolist())) / math.sqrt(len(first))
            yield Measure("few-different-words", different, rules.min_different_words, is_least=True)
        if rules.max_links:
            linked = sum(map(len, LINK.findall(view.text))) if "://" in view.text else 0
            yield Measure("links", linked / len(view.words.letters), rules.max_links)
        if rules.max_filler:
            yield Measure("filler", _filler(view.text), rules.max_filler)

    def places(self, view: DocumentView, drop: Drop) -> Sequence[Place]:
        """Return the characters or words that are counted; all that are no letters where those are too few."""
        text = view.text
        match drop.reason:
            case "few-letters":
                strange = (place for place, one in enumerate(text) if not one.isalpha() and not one.isspace())
                return merged((place, place + 1) for place in strange)
            case "alternating":
                return _alternations(text)
            case "single-letters":
                singles = [place for place, _ in (span for span in words(text) if span[1] - span[0] == 1)]
                return [(one, one + 1) for one in singles if text[one].isalpha() and text[one] < IDEOGRAPHS]
            case "links":
                return [found.span() for found in LINK.finditer(text)]
            case "misread":
                return merged(found.span() for found in MISREAD.finditer(text))
            case "controls":
                return merged(found.span() for found in CONTROLS.finditer(text))
            case "filler":
                return [(begin, end) for begin, end in words(text) if _is_filler(text[begin:end])]
        return ()  # of words that come back too often, that is all of them


def _alternations(text: str) -> list[Place]:
    """Return each letter and digit that meet, over white space too."""
    kinds = [(place, 1 if one.isalpha() else 2) for place, one in enumerate(text) if not one.isspace()]
    kinds = [(place, kind if kind == 1 or text[place].isdecimal() else 0) for place, kind in kinds]
    met = [(one[0], other[0]) for one, other in pairwise(kinds) if one[1] and other[1] and one[1] != other[1]]
    return merged((place, place + 1) for pair in met for place in pair)


def _is_filler(word: str) -> bool:
    return word.strip(".,;:!?()\"'").lower() in FILLER


def _filler(text: str) -> float:
    if "orem ipsum" not in text and "OREM IPSUM" not in text:
        return 0.0
    said = text.split()
    return sum(map(_is_filler, said)) / len(said)
