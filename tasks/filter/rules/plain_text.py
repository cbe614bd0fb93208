"""The rule against what is no text for people: dumps, blobs, link lists, wrongly decoded and filler text."""

import math
import re
from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from tasks.filter.rules.base import KEEP, Drop, Judgement, Measure, Rule, RuleConfig, first_broken
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


def _filler(text: str) -> float:
    if "orem ipsum" not in text and "OREM IPSUM" not in text:
        return 0.0
    words = [word.strip(".,;:!?()\"'").lower() for word in text.split()]
    return sum(word in FILLER for word in words) / len(words)
