"""The words of a document, with what filters and MinHash ask about them."""

from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash
from datatrove.utils.text import TextNormConfig, simplify_text

from tasks.core.compiling import BASE, Codes, Hashes, Hashes32, Places, mixed
from tasks.filter.character_counts import CharacterCounts, count_characters
from tasks.filter.characters import ASCII, characters, is_alone
from tasks.filter.kernels import (
    HAS_LETTER,
    ONLY_MARKS,
    UNKNOWN,
    count_words,
    first_of_each,
    has_word,
    scan,
    shingle_hashes,
)
from tasks.filter.lazy import lazy
from tasks.filter.line_facts import LineFacts, ParagraphFacts, count_lines, count_paragraphs, terminal_marks
from tasks.filter.windows import longest, most_frequent, power, repeated_letters

Flags = npt.NDArray[np.bool_]

POWERS: Hashes = np.array([power(exponent) for exponent in range(1024)], np.uint64)
"""Of the base of hashes: most windows of words have fewer letters."""


class WordCounts(NamedTuple):
    """Counts about the words of a document."""

    spoken: int
    """Words that are more than punctuation."""
    spoken_characters: int
    lettered: int
    """Words with a letter in them."""


class DocumentWords:
    """What stands between white space, as `str.split` finds it."""

    def __init__(self, text: str, *, keep_numbers: bool = False) -> None:
        self._codes, self.letters, self.ends, self._prefixes, self._flags, normalised = scanned(text, keep_numbers)
        if normalised is None:  # `lower` knows the last letter of Greek words
            normalised = scanned(text.lower(), keep_numbers).normalised
        if normalised is None:
            normal_form = TextNormConfig(norm_numbers=not keep_numbers)
            normalised = hashed_words(apart(simplify_text(text, normal_form)).split())
        self.normalised: Hashes = normalised
        """A hash of each normalised word, in the order of the text."""

    def __len__(self) -> int:
        return len(self._flags)

    def __contains__(self, word: str) -> bool:
        return bool(has_word(self.letters, self.ends, word_codes(word)))

    @lazy
    def counts(self) -> WordCounts:
        """What is counted about the words."""
        return WordCounts(*map(int, count_words(self.ends, self._flags)))

    @lazy
    def lengths(self) -> Places:
        """Characters of each word."""
        return np.diff(self.ends)

    @lazy
    def have_letter(self) -> Flags:
        """Whether there is a letter in each word."""
        return (self._flags & HAS_LETTER).astype(np.bool_)

    @lazy
    def only_marks(self) -> Flags:
        """Whether each word is nothing but characters of datatrove's PUNCTUATION_SET."""
        return (self._flags & ONLY_MARKS).astype(np.bool_)

    def character_counts(self) -> CharacterCounts:
        """Return what is counted over all characters but white space."""
        return CharacterCounts(*count_characters(self.letters, self.ends, characters().of(self.letters)[0]))

    def exact_hash(self) -> bytes:
        """Return 16 bytes that are equal for texts of equal words, whatever white space stands between them."""
        letters, lengths = self.letters, self.lengths
        if letters.dtype == np.uint32 and letters.max(initial=0) < ASCII:  # only white space was none
            letters = letters.astype(np.uint8)
        return xxhash.xxh3_128_digest(letters.tobytes() + lengths.tobytes())

    def shingles(self, size: int) -> Hashes32:
        """Return the hashes of all runs of `size` normalised words, ascending and distinct."""
        hashes = shingle_hashes(self.normalised, size)
        hashes.sort()
        return hashes[: first_of_each(hashes)]

    @lazy
    def lines(self) -> LineFacts:
        """What is counted about the lines of the text."""
        lengths = np.empty(self._codes.size, np.int64)
        facts = LineFacts(*map(int, count_lines(self._codes, self._classes(), terminal_marks(), lengths)))
        self._line_lengths = lengths[: facts.written]
        return facts

    @lazy
    def paragraphs(self) -> ParagraphFacts:
        """What is counted about its paragraphs."""
        return ParagraphFacts(*map(int, count_paragraphs(self._codes, self._classes())))

    def _classes(self) -> npt.NDArray[np.uint8]:
        return characters().of(self._codes)[0]

    def short_lines(self, most: int) -> int:
        """Return how many written lines have at most so many characters."""
        return int(np.count_nonzero(self._line_lengths <= most)) if self.lines.written else 0

    def longest(self, size: int) -> int:
        """Return the characters of the longest window of `size` words, blanks between included; 0 if none."""
        if len(self) < size:
            return 0
        return int(longest(self.ends, size))

    def repeated_letters(self, size: int) -> int:
        """Return how many letters stand in windows of `size` words that repeat earlier ones."""
        if len(self) < size:
            return 0
        return int(repeated_letters(self.letters, self.ends, self._prefixes, POWERS, size))

    def most_frequent(self, size: int) -> tuple[int, int]:
        """Return how often the most frequent window of `size` words occurs, and its characters; (0, 0) if none."""
        if len(self) < size:
            return 0, 0
        return most_frequent(self.letters, self.ends, self._prefixes, POWERS, size)


class Scanned(NamedTuple):
    """What one pass over a text finds."""

    codes: Codes
    """The text, with a blank behind it."""
    letters: Codes
    """The words, without anything between them."""
    ends: Places
    """Where each word ends in `letters`, after a leading 0."""
    prefixes: Hashes
    """Hash of all letters before each word, and before the end."""
    flags: npt.NDArray[np.uint8]
    normalised: Hashes | None
    """None if a normal form follows from more than single characters."""


def scanned(text: str, keep_numbers: bool = False) -> Scanned:
    """Return what `kernels.scan` finds, in arrays of the right sizes."""
    codes, tables = as_codes(f"{text} "), characters()
    most = len(codes) // 2 + 2
    letters, ends, prefixes = np.empty_like(codes), np.empty(most, np.int64), np.empty(most, np.uint64)
    flags, normalised = np.empty(most, np.uint8), np.empty(len(codes), np.uint64)
    classes, forms, expansions = tables.of(codes)
    while True:
        words, normal = scan(
            codes, classes, forms, expansions, keep_numbers, letters, ends, prefixes, flags, normalised
        )
        if words != UNKNOWN:
            break
        tables.learn(codes)
    hashes = None if normal == UNKNOWN else normalised[:normal]
    return Scanned(codes, letters[: ends[words]], ends[: words + 1], prefixes[: words + 1], flags[:words], hashes)


def apart(text: str) -> str:
    """Return a text with blanks around the characters that are words by themselves."""
    return "".join(f" {character} " if is_alone(character) else character for character in text)


def as_codes(text: str) -> Codes:
    """Return the characters of a text as numbers: bytes if all are ASCII, else code points."""
    if text.isascii():
        return np.frombuffer(text.encode(), np.uint8)
    return np.frombuffer(text.encode("utf-32-le"), np.uint32)


@cache
def word_codes(word: str) -> Hashes32:
    """Return the code points of a word that is looked for in many texts."""
    return as_codes(word).astype(np.uint32)


def hashed_words(words: list[str]) -> Hashes:
    """Return the hash that `scan` gives to each of these normalised words."""
    hashes = []
    for word in words:
        value = 0
        for character in word:
            value = (value * int(BASE) + ord(character) + 1) % (1 << 64)
        hashes.append(mixed(np.uint64(value)))
    return np.array(hashes, np.uint64)
