"""What filters and MinHash ask about words, computed once per distinct word and looked up by number.

A document is split at white space, every distinct word of the process has a row in a table, and a document
becomes the rows of its words. Lengths, letters and normalised forms are then numpy look-ups: some 100 ns a word
instead of the 2 us that Python needs to normalise one.
"""

import re
import unicodedata
from collections.abc import Mapping
from functools import cache, cached_property
from itertools import islice
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import xxhash
from datatrove.utils.text import NUMBERS_PATTERN, PUNCTUATION, PUNCTUATION_SET
from datatrove.utils.word_tokenizers import WordTokenizer

Hashes = npt.NDArray[np.uint64]
Integers = npt.NDArray[np.int64]
ScalarT = TypeVar("ScalarT", bound=np.generic)

MAX_WORDS = 500_000
"""Distinct words that a process remembers, about 100 MB. Then it starts afresh, which changes no result."""
MAX_CHARACTERS = 50_000_000
"""Characters of remembered words: with base64 in a corpus single words have megabytes."""

BASE = 0x9E3779B97F4A7C15
"""Base of the polynomial hash of a word; odd, so that it has an inverse modulo 2^64."""
INVERSE = pow(BASE, -1, 1 << 64)

ROW = np.dtype(
    [
        ("characters", np.int32),
        ("has_letter", np.bool_),
        ("only_marks", np.bool_),  # nothing but datatrove's PUNCTUATION_SET
        ("hash", np.uint64),  # sum of code point * BASE^(characters behind it), modulo 2^64
        ("power", np.uint64),  # BASE^characters
        ("inverse", np.uint64),  # BASE^-characters
        ("normalised_start", np.int64),  # its normalised words: none (`--`), one or several (`e-mail`)
        ("normalised_count", np.int32),
    ],
    align=True,
)

_SENTENCE = re.compile(r"[^.!?\n]+[.!?\n]*")
_SPACE_FOR_MARK = {ord(mark): " " for mark in PUNCTUATION}
_ASCII_SPACE_FOR_MARK = bytes(32 if chr(code) in PUNCTUATION else code for code in range(256))
_ASCII_NUMBER = re.compile(rb"[0-9]+(?:[.,][0-9]+)?")


class WhitespaceTokenizer(WordTokenizer):
    """Words are what stands between white space.

    datatrove's default for English is spaCy: 135 times slower than `str.split`, and its punctuation tokens count
    against Gopher's share of words with letters (of a set of manual pages it keeps 1 % instead of 98 %).
    """

    def __init__(self) -> None:
        super().__init__("en")

    def word_tokenize(self, text: str) -> list[str]:
        """Return the words."""
        return text.split()

    def sent_tokenize(self, text: str) -> list[str]:
        """Return sentences: up to a full stop, an exclamation or question mark or the end of the line."""
        return [sentence.strip() for sentence in _SENTENCE.findall(text) if sentence.strip()]

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        """Return the places of the sentences."""
        return [match.span() for match in _SENTENCE.finditer(text)]


class DocumentWords:
    """The words of one document, with what the table knows about each of them."""

    def __init__(
        self, rows: npt.NDArray[np.void], normalised: Hashes, numbers: Integers, numbering: Mapping[str, int]
    ) -> None:
        self.rows = rows
        self.numbers = numbers
        """The number of each word in the table."""
        self._normalised = normalised
        self._numbering = numbering

    def __len__(self) -> int:
        return len(self.rows)

    def __contains__(self, word: str) -> bool:
        number = self._numbering.get(word)
        return number is not None and bool((self.numbers == number).any())

    @cached_property
    def ends(self) -> Integers:
        """Where each word ends in all words written without spaces, after a leading 0."""
        return np.concatenate(([0], np.cumsum(self.rows["characters"], dtype=np.int64)))

    def normalised_hashes(self) -> Hashes:
        """Return a hash of each normalised word, in the order of the text."""
        counts = self.rows["normalised_count"]
        ends = np.cumsum(counts, dtype=np.int64)
        places = np.repeat(self.rows["normalised_start"] - (ends - counts), counts)
        return self._normalised[places + np.arange(len(places))]

    def window_hashes(self, size: int) -> Hashes:
        """Return a hash of every `size` neighbouring words, written without spaces as the Gopher rules do.

        A window's polynomial hash is the difference of two prefix sums, shifted by a power of the base.
        """
        if len(self) < size:
            return np.empty(0, np.uint64)
        prefix, powers = self._prefix_sums
        return (prefix[size:] - prefix[:-size]) * powers[size - 1 :]

    @cached_property
    def _prefix_sums(self) -> tuple[Hashes, Hashes]:
        scaled = self.rows["hash"] * np.cumprod(self.rows["inverse"])
        return np.concatenate((np.zeros(1, np.uint64), np.cumsum(scaled))), np.cumprod(self.rows["power"])


class WordTable:
    """All distinct words that this process has met, numbered in the order of their first occurrence."""

    def __init__(self) -> None:
        self._text: str | None = None
        self._words = DocumentWords(np.empty(0, ROW), np.empty(0, np.uint64), np.empty(0, np.int64), {})
        self._is_letter = _Letters()
        self._forget()

    def words(self, text: str) -> DocumentWords:
        """Return the words of a document; the last one asked for is remembered."""
        if text is not self._text:
            if len(self._numbers) > MAX_WORDS or self._characters > MAX_CHARACTERS:
                self._forget()
            self._words = self._looked_up(text.split())
            self._text = text
        return self._words

    def number(self, word: str) -> int:
        """Return the number that a word has, -1 if no document had it yet."""
        return self._numbers.get(word, -1)

    def _forget(self) -> None:
        self._numbers = _Numbers()
        self._characters = 0
        self._rows: npt.NDArray[np.void] = np.empty(1024, ROW)
        self._normalised: Hashes = np.empty(1024, np.uint64)
        self._normalised_size = 0

    def _looked_up(self, words: list[str]) -> DocumentWords:
        known = len(self._numbers)
        numbers = np.fromiter(map(self._numbers.__getitem__, words), np.int64, len(words))
        if len(self._numbers) > known:
            self._learn(list(islice(reversed(self._numbers), len(self._numbers) - known))[::-1], known)
        return DocumentWords(self._rows[numbers], self._normalised, numbers, self._numbers)

    def _learn(self, words: list[str], first: int) -> None:
        """Fill the rows of new words, all of them at once."""
        self._rows = _grown(self._rows, first + len(words))
        rows = self._rows[first : first + len(words)]
        codes = np.frombuffer("".join(words).encode("utf-32-le"), np.uint32)
        characters = np.fromiter(map(len, words), np.int64, len(words))
        ends = np.cumsum(characters)
        starts = ends - characters
        powers = _powers(BASE, int(characters.max()))
        behind = np.repeat(ends, characters) - np.arange(1, len(codes) + 1)
        rows["characters"] = characters
        rows["has_letter"] = np.logical_or.reduceat(self._is_letter[codes], starts)
        rows["only_marks"] = np.logical_and.reduceat(_marks()[codes], starts)
        rows["hash"] = np.add.reduceat(codes.astype(np.uint64) * powers[behind], starts)
        rows["power"] = powers[characters]
        rows["inverse"] = _powers(INVERSE, int(characters.max()))[characters]
        self._characters += len(codes)
        self._learn_normalised(words, rows)

    def _learn_normalised(self, words: list[str], rows: npt.NDArray[np.void]) -> None:
        normalised = [line.split() for line in normalised_lines(words)]
        counts = np.fromiter(map(len, normalised), np.int64, len(words))
        total = int(counts.sum())
        self._normalised = _grown(self._normalised, self._normalised_size + total)
        hashes = (xxhash.xxh3_64_intdigest(word) for group in normalised for word in group)
        start = self._normalised_size
        self._normalised[start : start + total] = np.fromiter(hashes, np.uint64, total)
        rows["normalised_count"] = counts
        rows["normalised_start"] = start + np.cumsum(counts) - counts
        self._normalised_size += total


@cache
def word_table() -> WordTable:
    """Return the table of this process."""
    return WordTable()


def normalised_lines(words: list[str]) -> list[bytes]:
    """Normalise words without white space, all at once; each becomes a line of normalised words in UTF-8.

    They are those that MinHash compares: lower case, no punctuation or accents, every number is `0`. The same as
    datatrove's `simplify_text(text).split()`.
    """
    text = "\n".join(words).lower()
    if text.isascii():
        data = _ASCII_NUMBER.sub(b"0", text.encode()).translate(_ASCII_SPACE_FOR_MARK)
    else:
        text = NUMBERS_PATTERN.sub("0", text).translate(_SPACE_FOR_MARK)
        data = unicodedata.normalize("NFD", text).translate(_without_accents).encode()
    return data.split(b"\n")


class _Numbers(dict[str, int]):
    """Word -> number; a new word gets the next one."""

    def __missing__(self, word: str) -> int:
        number = self[word] = len(self)
        return number


class _Letters:
    """`str.isalpha` for arrays of code points."""

    UNKNOWN = 2

    def __init__(self) -> None:
        self._table = np.full(0x110000, self.UNKNOWN, np.uint8)

    def __getitem__(self, codes: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]:
        values = self._table[codes]
        for code in set(codes[values == self.UNKNOWN].tolist()):
            self._table[code] = chr(code).isalpha()
        return self._table[codes].astype(np.bool_)


class _WithoutAccents(dict[int, str]):
    """Character of a decomposed text -> itself, or nothing if it is a combining mark; for `str.translate`."""

    def __missing__(self, code: int) -> str:
        self[code] = "" if unicodedata.category(chr(code)) == "Mn" else chr(code)
        return self[code]


_without_accents = _WithoutAccents()


@cache
def _marks() -> npt.NDArray[np.bool_]:
    table = np.zeros(0x110000, np.bool_)
    table[[ord(mark) for mark in PUNCTUATION_SET]] = True
    return table


def _powers(base: int, highest: int) -> Hashes:
    factors = np.full(highest + 1, base, np.uint64)
    factors[0] = 1
    return np.cumprod(factors)


def _grown(array: npt.NDArray[ScalarT], size: int) -> npt.NDArray[ScalarT]:
    if size <= len(array):
        return array
    larger = np.empty(max(size, 2 * len(array)), array.dtype)
    larger[: len(array)] = array
    return larger
