"""Counts over the characters of one document that tell text from what is none."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tasks.core.compiling import Codes, Places, compiled
from tasks.filter.kernels import DIGIT, LETTER

FIRST_IDEOGRAPH = 0x2E80
"""From here on a word may well be one character."""
LEAD, LAST_LEAD, TRAIL, LAST_TRAIL = 0xC2, 0xF4, 0x80, 0xBF
"""Bytes of UTF-8: the first one of a character of several, and those behind it."""
WINDOWS = tuple(map(ord, "€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ"))
"""What Windows reads the bytes 0x80 to 0x9F as."""


class CharacterCounts(NamedTuple):
    """How often something occurs among the characters, and the words, of a document."""

    letters: int
    alternations: int
    """Places where a letter and a digit meet."""
    misread: int
    """Places in words where a first byte of UTF-8, read as a character, stands before a later one."""
    controls: int
    """Control, private and replacement characters."""
    single_letters: int
    """Words that are one letter."""


@compiled("letters", "places", "bytes")
def count_characters(
    letters: Codes, ends: Places, classes: npt.NDArray[np.uint8]
) -> tuple[int, int, int, int, int]:
    """Return the fields of CharacterCounts; `ends` are those of the words, after a leading 0."""
    found, alternations, misread, controls, single = 0, 0, 0, 0, 0
    before = 0
    for word in range(ends.size - 1):
        begin, end = ends[word], ends[word + 1]
        was_lead = False
        for place in range(begin, end):
            code = np.int64(letters[place])
            kind = classes[code] & (LETTER | DIGIT)
            if kind == LETTER:
                found += 1
            if kind and before and kind != before:
                alternations += 1
            before = kind
            if code < 0x20 or 0x7F <= code < 0xA0 or code == 0xFFFD or 0xE000 <= code <= 0xF8FF:
                controls += 1
            if was_lead and (TRAIL <= code <= LAST_TRAIL or code in WINDOWS):
                misread += 1
            was_lead = bool(LEAD <= code <= LAST_LEAD)
        if end - begin == 1 and classes[letters[begin]] & LETTER and letters[begin] < FIRST_IDEOGRAPH:
            single += 1
    return found, alternations, misread, controls, single
