"""What is known about single characters: their classes, and the normal forms that MinHash compares."""

import threading
import unicodedata
from functools import cache

import numpy as np
import numpy.typing as npt
from datatrove.utils.text import NUMBERS_PATTERN, PUNCTUATION, PUNCTUATION_SET

from tasks.core.compiling import Codes
from tasks.filter.kernels import (
    ALONE,
    BLANK,
    CONTEXT,
    DIGIT,
    KNOWN,
    LETTER,
    MARK,
    NOTHING,
    SEPARATOR,
    SEVERAL,
    SPACE,
)

_BLANKS = frozenset(PUNCTUATION)
ASCII = 128

WITHOUT_BLANKS = (
    ("\u0e01", "\u0eff"),  # Thai, Lao
    ("\u1000", "\u109f"),  # Myanmar
    ("\u1780", "\u17ff"),  # Khmer
    ("\u2e80", "\u2fdf"),  # radicals of Han characters
    ("\u3005", "\u3007"),
    ("\u3040", "\u312f"),  # Hiragana, Katakana, Bopomofo
    ("\u31a0", "\u31bf"),
    ("\u31f0", "\u31ff"),
    ("\u3400", "\u4dbf"),  # Han
    ("\u4e00", "\u9fff"),
    ("\uf900", "\ufaff"),
    ("\U00020000", "\U000323af"),
)
"""Ranges of the characters of scripts that write no blanks between words."""

MOST_EXPANSIONS = 1 << 17
"""Room for them all: the syllables of Hangul take 43,000, all others 2,000."""


class Characters:
    """Tables over code points, filled when a character is met first: few of the million occur.

    The normal form of a text is that of datatrove's `simplify_text`: lower case, numbers as `0`, punctuation as
    blanks, decomposed, without accents; besides, each character of a script without blanks is a word by itself. It
    follows character by character but for those of the class CONTEXT.
    """

    def __init__(self) -> None:
        self._classes = np.zeros(0x110000, np.uint8)
        self._forms = np.zeros(0x110000, np.uint32)
        self._expansions = np.zeros(MOST_EXPANSIONS, np.uint32)
        self._used = 0
        self._lock = threading.Lock()
        self.learn(np.arange(ASCII, dtype=np.uint32))
        self._ascii = self._classes[:ASCII].copy(), self._forms[:ASCII].copy(), self._expansions

    def of(self, codes: Codes) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
        """Return classes, forms and expansions, short ones for bytes: they stay in the nearest cache."""
        return self._ascii if codes.dtype == np.uint8 else (self._classes, self._forms, self._expansions)

    def learn(self, codes: Codes) -> None:
        """Fill in the rows of these characters."""
        with self._lock:
            for code in np.unique(codes[self._classes[codes] == 0]).tolist():
                form = _form(chr(code))
                self._forms[code] = _code(form) if len(form) == 1 else self._place(form)
                self._classes[code] = _class(chr(code), form)  # last: it says that the others are there

    def _place(self, form: str) -> int:
        if not form:
            return int(NOTHING)
        place = self._used
        self._used += 1 + len(form)
        self._expansions[place : self._used] = [len(form), *map(ord, form)]
        return int(SEVERAL) + place


@cache
def characters() -> Characters:
    """Return the tables of this process."""
    return Characters()


def is_alone(character: str) -> bool:
    """Tell whether a character is a word by itself when documents are compared: in scripts that write no blanks
    between words a whole sentence would be one otherwise."""
    return any(first <= character <= last for first, last in WITHOUT_BLANKS)


def _code(form: str) -> int:
    return ord(form) + int(ALONE) * is_alone(form)


def _form(character: str) -> str:
    decomposed = unicodedata.normalize("NFD", character.lower())
    return "".join(part for part in decomposed if unicodedata.category(part) != "Mn")


def _class(character: str, form: str) -> int:
    # The small form of a capital sigma is another one at the end of a word; of marks that are not dropped, some
    # change places with their neighbours.
    needs_context = character == "Σ" or any(map(unicodedata.combining, form))
    return (
        KNOWN
        | SPACE * character.isspace()
        | LETTER * character.isalpha()
        | MARK * (character in PUNCTUATION_SET)
        | BLANK * (character in _BLANKS)
        | DIGIT * (NUMBERS_PATTERN.fullmatch(character) is not None)
        | SEPARATOR * (NUMBERS_PATTERN.fullmatch(f"0{character}0") is not None)
        | CONTEXT * needs_context
    )
