"""The slow, obvious search for documents that are alike: sets of word n-grams as datatrove normalises them, and an
inverted index over all of them. It shares no code with what it judges."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import regex
from datatrove.utils.text import simplify_text

from storage.formats.documents import Document

SHINGLE = 5
"""Words of an n-gram."""


WITHOUT_BLANKS = regex.compile(r"([\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Myanmar}\p{Khmer}])")
"""Characters of scripts that write no blanks: each is a word, where a line would be one otherwise."""


def shingles(text: str) -> frozenset[tuple[str, ...]]:
    """Return the set of a text's word n-grams."""
    words = WITHOUT_BLANKS.sub(r" \1 ", simplify_text(text)).split()
    return frozenset(zip(*(words[start:] for start in range(SHINGLE)), strict=False))


class Index:
    """All n-grams of all documents."""

    def __init__(self, documents: Sequence[Document]) -> None:
        self.grams = {document.id: shingles(document.text) for document in documents}
        self._owners: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for name, grams in self.grams.items():
            for gram in grams:
                self._owners[gram].append(name)

    def common(self, name: str, among: set[str]) -> Iterator[tuple[str, int]]:
        """Yield the documents among some that share n-grams with one, and how many."""
        found = Counter(owner for gram in self.grams[name] for owner in self._owners[gram] if owner in among)
        del found[name]
        yield from found.items()

    def similarity(self, name: str, among: set[str]) -> float:
        """Return the largest Jaccard similarity of a document with one of some others."""
        size = len(self.grams[name])
        shares = (n / (size + len(self.grams[other]) - n) for other, n in self.common(name, among))
        return max(shares, default=0.0)

    def containment(self, name: str, among: set[str]) -> float:
        """Return the largest share of a document's n-grams that one of some others has."""
        return max((n / len(self.grams[name]) for _, n in self.common(name, among)), default=0.0)

    def holds(self, name: str, among: set[str]) -> float:
        """Return the largest share of the n-grams of one of some others that a document has."""
        return max((n / len(self.grams[other]) for other, n in self.common(name, among)), default=0.0)
