"""What rules ask about the lines and paragraphs of one document, counted in a pass over its characters."""

from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tasks.core.compiling import BASE, Codes, Hashes32, Places, compiled, mixed
from tasks.filter.kernels import LETTER, SPACE, empty_table

BREAK, BLANK_CODE = ord("\n"), ord(" ")
HASH, DOT, ELLIPSIS, BULLET, DASH = map(ord, "#.…•-")
OTHER_BREAKS = (0x0B, 0x0C, 0x0D, 0x1C, 0x1D, 0x1E, 0x85, 0x2028, 0x2029)
"""Where `str.splitlines` ends a line besides."""
RETURN = 0x0D


class LineFacts(NamedTuple):
    """Counts. A line stands between line feeds here and is not empty; a written one is more than white space."""

    lines: int
    repeated: int
    """Lines that are equal to an earlier one."""
    repeated_characters: int
    written: int
    written_repeated: int
    """Written lines that are equal to an earlier one."""
    written_repeated_characters: int
    ended: int
    """Written lines that end with one of the marks that are given."""
    feeds: int
    """Line feeds."""
    all_lines: int
    """Lines as `str.splitlines` finds them."""
    hashes: int
    ellipses: int
    """Of both kinds: the one character, and three dots."""
    dashes: int
    """And bullets."""


class ParagraphFacts(NamedTuple):
    """Counts of what stands between empty lines."""

    paragraphs: int
    repeated: int
    repeated_characters: int


@compiled("codes", "places", "places", "hash", "number", "ints")
def first_equal(
    codes: Codes, begins: Places, ends: Places, hashed: np.uint64, unit: int, table: npt.NDArray[np.int32]
) -> int:
    """Return the number of the first unit of equal characters; remember this one if there is none before it."""
    slot = np.int64(hashed & np.uint64(table.size - 1))
    begin, size = begins[unit], ends[unit] - begins[unit]
    while table[slot] >= 0:
        other = np.int64(table[slot])
        if ends[other] - begins[other] == size:
            place = 0
            while place < size and codes[begins[other] + place] == codes[begin + place]:
                place += 1
            if place == size:
                return int(other)
        slot = (slot + 1) & (table.size - 1)
    table[slot] = unit
    return unit


@compiled("number")
def is_break(code: int) -> bool:
    """Tell whether `str.splitlines` ends a line here, line feeds aside."""
    found = False
    for other in OTHER_BREAKS:
        found = found or code == other
    return found


@compiled("codes", "bytes", "fixed points", "places")
def count_lines(
    codes: Codes, classes: npt.NDArray[np.uint8], marks: Hashes32, lengths: Places
) -> tuple[int, int, int, int, int, int, int, int, int, int, int, int]:
    """Return the fields of LineFacts, and in `lengths` the characters of each written line.

    Args:
        codes: The text, and one character behind it.
        marks: Ascending; a written line that ends with one of them counts as ended.
    """
    size, feeds = codes.size - 1, 0
    for place in range(size):
        feeds += codes[place] == BREAK
    begins, ends = np.empty(feeds + 1, np.int64), np.empty(feeds + 1, np.int64)
    table = empty_table(feeds + 1)
    breaks, hashes, ellipses, dashes, dots = feeds, 0, 0, 0, 0
    lines, repeated, repeated_characters, begin = 0, 0, 0, 0
    written, written_repeated, written_repeated_characters, ended = 0, 0, 0, 0
    hashed, is_written = np.uint64(0), False
    for place in range(size + 1):
        code = codes[place]
        if place < size and code != BREAK:
            hashed = hashed * BASE + np.uint64(code)
            kind = classes[code]
            if kind & LETTER:
                is_written, dots = True, 0
                continue
            dots = dots + 1 if code == DOT else 0
            if kind & SPACE:
                if code != BLANK_CODE:
                    is_pair = code == RETURN and place + 1 < size and codes[place + 1] == BREAK
                    breaks += is_break(code) and not is_pair
                continue
            is_written = True
            if dots == 3:
                ellipses, dots = ellipses + 1, 0
            hashes += code == HASH
            dashes += code in (DASH, BULLET)
            ellipses += code == ELLIPSIS
            continue
        length, dots = place - begin, 0
        if length:
            begins[lines], ends[lines] = begin, place
            is_repeat = first_equal(codes, begins, ends, mixed(hashed), lines, table) != lines
            lines += 1
            repeated += is_repeat
            repeated_characters += is_repeat * length
            if is_written:
                lengths[written] = length
                written += 1
                written_repeated += is_repeat
                written_repeated_characters += is_repeat * length
                mark = np.searchsorted(marks, codes[place - 1])
                ended += mark < marks.size and marks[mark] == codes[place - 1]
        begin, hashed, is_written = place + 1, np.uint64(0), False
    ends_broken = size > 0 and (codes[size - 1] == BREAK or is_break(codes[size - 1]))
    all_lines = breaks + (size > 0 and not ends_broken)
    return (
        lines, repeated, repeated_characters, written, written_repeated, written_repeated_characters, ended,
        feeds, all_lines, hashes, ellipses, dashes,
    )  # fmt: skip


@compiled("codes", "bytes")
def count_paragraphs(codes: Codes, classes: npt.NDArray[np.uint8]) -> tuple[int, int, int]:
    """Return the fields of ParagraphFacts for a text and one character behind it.

    White space around the text does not count; within it a paragraph ends at two line feeds.
    """
    first, last = 0, codes.size - 1
    while first < last and classes[codes[first]] & SPACE:
        first += 1
    while first < last and classes[codes[last - 1]] & SPACE:
        last -= 1
    most = 1
    for place in range(first, last):
        most += codes[place] == BREAK
    begins, ends = np.empty(most, np.int64), np.empty(most, np.int64)
    table = empty_table(most)
    found, repeated, repeated_characters, begin = 0, 0, 0, first
    hashed = np.uint64(0)
    for place in range(first, last + 1):
        is_end = place == last or (codes[place] == BREAK and place + 1 < last and codes[place + 1] == BREAK)
        if not is_end:
            if begin == place and codes[place] == BREAK:
                begin = place + 1  # a third one in a row
            else:
                hashed = hashed * BASE + np.uint64(codes[place])
            continue
        if place > begin:
            begins[found], ends[found] = begin, place
            is_repeat = first_equal(codes, begins, ends, mixed(hashed), found, table) != found
            found += 1
            repeated += is_repeat
            repeated_characters += is_repeat * (place - begin)
        begin, hashed = place + 1, np.uint64(0)
    return found, repeated, repeated_characters


@cache
def terminal_marks() -> Hashes32:
    """Return the marks that end a sentence, of datatrove's TERMINAL_PUNCTUATION, as ascending code points."""
    from datatrove.utils.text import TERMINAL_PUNCTUATION  # noqa: PLC0415 - not needed for planning

    return np.array(sorted(ord(mark) for mark in TERMINAL_PUNCTUATION if len(mark) == 1), np.uint32)
