"""Loops over the characters and words of one document, compiled by numba.

Without numba they run as they stand, with the same results, some hundred times slower. Whole numbers are 64 bits
and wrap around; numba would make a float of an unsigned and a signed one, so constants are unsigned too.
"""

import functools
import hashlib
import logging
import os
import pickle
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from storage.formats.minhash import Hashes

log = logging.getLogger(__name__)

try:
    import numba
except ImportError as missing:
    numba = None  # type: ignore[assignment]
    log.warning("the filter takes 400 times as long without numba, which should be installed: %s", missing)

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

Codes = npt.NDArray[np.uint8] | npt.NDArray[np.uint32]
"""Characters: code points, in bytes if all are ASCII."""
Places = npt.NDArray[np.int64]

SPACE, LETTER, MARK, BLANK, DIGIT, SEPARATOR, CONTEXT, KNOWN = (1 << bit for bit in range(8))
"""Classes of a character: white space; `isalpha`; of datatrove's PUNCTUATION_SET; normalised to a blank; of a
number; stands between its digits; normalised as its neighbours demand; looked up already."""

HAS_LETTER, ONLY_MARKS = 1, 2
"""What the flags of a word say."""

NOTHING = np.uint32(0xFFFFFFFF)
SEVERAL = np.uint32(0x80000000)
"""From here on a normal form is a place among the expansions, where their number comes first."""

UNKNOWN = -1
"""Number of words of a text with a character that no table knows yet."""

BASE = np.uint64(0x9E3779B97F4A7C15)
"""Base of polynomial hashes; odd. Long words of one hash can be made up: what decides by itself about a document
compares letters too."""
MIXER = np.uint64(0xD6E8FEB86659FD93)
ZERO = np.uint64(ord("0") + 1)
ONE, HALF, NEARLY_HALF = np.uint64(1), np.uint64(32), np.uint64(29)


def compiled(*parameters: str) -> Callable[[FunctionT], FunctionT]:
    """Return a decorator that compiles a function for parameters of these kinds, at once and in all variants.

    Kinds are those of `_variants`. numba keeps what it compiled on disk, numbered, without a lock: were variants
    compiled as texts demand them, two processes could take each other's. The name has a digest of this file, since
    numba would also take what was kept for another version if it was killed in the middle of replacing it.
    """

    def compile_now(function: FunctionT) -> FunctionT:
        if numba is None or os.environ.get("NUMBA_DISABLE_JIT", "0") != "0":
            return _wrapping_around(function)
        variants = _variants(parameters)
        function.__qualname__ += f"_{_digest()}"
        try:
            return cast(FunctionT, numba.njit(variants, cache=True)(function))
        except (RuntimeError, OSError, EOFError, pickle.UnpicklingError):  # nothing can be kept, or it is damaged
            return cast(FunctionT, numba.njit(variants)(function))

    return compile_now


def _variants(parameters: Sequence[str]) -> list[tuple[Any, ...]]:
    """Return the types of the parameters: once, or once for bytes and once for code points."""
    types = numba.types
    elements = {"bytes": types.uint8, "points": types.uint32, "places": types.int64, "hashes": types.uint64}
    kinds: dict[str, Any] = {name: types.Array(element, 1, "C") for name, element in elements.items()}
    kinds |= {"number": types.int64, "hash": types.uint64}
    variants = []
    for code in (types.uint8, types.uint32):
        kinds["letters"] = types.Array(code, 1, "C")
        kinds["codes"] = types.Array(code, 1, "C", readonly=True)
        variants.append(tuple(kinds[name] for name in parameters))
    return list(dict.fromkeys(variants))


@cache
def _digest() -> str:
    return hashlib.sha256(Path(__file__).read_bytes() + numba.__version__.encode()).hexdigest()[:12]


def _wrapping_around(function: FunctionT) -> FunctionT:
    @functools.wraps(function)
    def silent(*arguments: Any) -> Any:
        with np.errstate(over="ignore"):
            return function(*arguments)

    return cast(FunctionT, silent)


@compiled("hash")
def mixed(value: np.uint64) -> np.uint64:
    """Return a value whose bits all depend on all bits."""
    value ^= value >> HALF
    value *= MIXER
    return value ^ (value >> NEARLY_HALF)


@compiled("number")
def power(exponent: int) -> np.uint64:
    """Return BASE to the power of a whole number."""
    result, factor = ONE, BASE
    while exponent:
        if exponent & 1:
            result = result * factor
        factor = factor * factor
        exponent >>= 1
    return result


@compiled("codes", "bytes", "points", "points", "letters", "places", "hashes", "bytes", "hashes")
def scan(
    codes: Codes,
    classes: npt.NDArray[np.uint8],
    forms: npt.NDArray[np.uint32],
    expansions: npt.NDArray[np.uint32],
    letters: Codes,
    ends: Places,
    prefixes: Hashes,
    flags: npt.NDArray[np.uint8],
    normalised: Hashes,
) -> tuple[int, int]:
    """Split a text into words and normalised words in one pass.

    Args:
        codes: The text, with white space behind it, which ends the last word.
        classes: Of each character.
        forms: The normal form of each character: a code point, NOTHING, or SEVERAL plus a place in `expansions`.
        expansions: Their number and the code points of normal forms that are several.
        letters: Gets the words, without anything between them.
        ends: Gets where each word ends in `letters`, after a leading 0.
        prefixes: Gets the hash of all letters before each word, and before the end.
        flags: Gets HAS_LETTER and ONLY_MARKS of each word.
        normalised: Gets a hash of each normalised word.

    Returns: how many words and how many normalised words there are. UNKNOWN words if a class is missing; UNKNOWN
    normalised words if a character demands that its neighbours be looked at.
    """
    words, size, found = 0, 0, 0
    hashed, normal = np.uint64(0), np.uint64(0)
    inside, in_normal, needs_context = False, False, False
    number = 0  # 1: in the digits of a number; 2: in those behind its separator
    has_letter, only_marks = False, True
    ends[0], prefixes[0] = 0, hashed
    for place in range(codes.size):
        code = codes[place]
        kind = classes[code]
        if kind == 0:
            return UNKNOWN, UNKNOWN
        if kind & SPACE:
            if inside:
                flags[words] = HAS_LETTER * has_letter + ONLY_MARKS * only_marks
                words += 1
                ends[words], prefixes[words] = size, hashed
                if in_normal:
                    normalised[found] = mixed(normal)
                    found += 1
                inside, in_normal, number, normal = False, False, 0, np.uint64(0)
            continue
        if not inside:
            inside, has_letter, only_marks = True, False, True
        letters[size] = code
        size += 1
        hashed = hashed * BASE + np.uint64(code) + ONE
        if kind & LETTER:
            has_letter = True
        if not kind & MARK:
            only_marks = False
        if kind & CONTEXT:
            needs_context = True
        if kind & DIGIT:
            if not number:
                normal = normal * BASE + ZERO
                in_normal, number = True, 1
            continue
        if number == 1 and kind & SEPARATOR:
            follower = classes[codes[place + 1]]
            if follower == 0:
                return UNKNOWN, UNKNOWN
            if follower & DIGIT:
                number = 2
                continue
        number = 0
        if kind & BLANK:
            if in_normal:
                normalised[found] = mixed(normal)
                found += 1
                in_normal, normal = False, np.uint64(0)
            continue
        form = forms[code]
        if form < SEVERAL:
            normal = normal * BASE + np.uint64(form) + ONE
            in_normal = True
        elif form != NOTHING:
            start = form - SEVERAL
            for index in range(start + 1, start + 1 + expansions[start]):
                normal = normal * BASE + np.uint64(expansions[index]) + ONE
            in_normal = True
    return words, UNKNOWN if needs_context else found


@compiled("number")
def empty_table(entries: int) -> npt.NDArray[np.int32]:
    """Return a hash table of free slots, twice as many as entries at least, and a power of two."""
    slots = 16
    while slots < 2 * entries:
        slots *= 2
    return np.full(slots, -1, np.int32)


@compiled("letters", "places", "hashes", "hashes", "number")
def repeated_letters(letters: Codes, ends: Places, prefixes: Hashes, powers: Hashes, size: int) -> int:
    """Return how many letters stand in repeated windows of `size` words, as datatrove's `find_all_duplicate` does.

    From left to right: a window that occurred before counts with all its letters and is stepped over; one that did
    not is remembered. Windows are equal if their letters are, wherever their words end.
    """
    windows = ends.size - size
    table = empty_table(windows)
    repeated, place = 0, 0
    while place < windows:
        begin, width = ends[place], ends[place + size] - ends[place]
        factor = powers[width] if width < powers.size else power(width)
        slot = np.int64(mixed(prefixes[place + size] - prefixes[place] * factor) & np.uint64(table.size - 1))
        same = False
        while table[slot] >= 0 and not same:
            other = ends[table[slot]]
            if ends[table[slot] + size] - other == width:
                offset = 0
                while offset < width and letters[other + offset] == letters[begin + offset]:
                    offset += 1
                same = offset == width
            if not same:
                slot = (slot + 1) & (table.size - 1)
        if same:
            repeated += width
            place += size
        else:
            table[slot] = place
            place += 1
    return repeated


@compiled("letters", "places", "hashes", "hashes", "number")
def most_frequent(letters: Codes, ends: Places, prefixes: Hashes, powers: Hashes, size: int) -> tuple[int, int]:
    """Return how often the most frequent window of `size` words occurs, and its characters, blanks included.

    Of several it is the one that occurs first. Windows are equal if their words are.
    """
    windows = ends.size - size
    table = empty_table(windows)
    counts = np.zeros(windows, np.int32)
    for place in range(windows):
        begin, width = ends[place], ends[place + size] - ends[place]
        factor = powers[width] if width < powers.size else power(width)
        hashed = prefixes[place + size] - prefixes[place] * factor
        for word in range(place + 1, place + size):
            hashed = hashed * MIXER + np.uint64(ends[word] - begin)
        slot = np.int64(mixed(hashed) & np.uint64(table.size - 1))
        same = False
        while table[slot] >= 0 and not same:
            first = table[slot]
            other = ends[first]
            same = True
            for word in range(1, size + 1):
                if ends[first + word] - other != ends[place + word] - begin:
                    same = False
            offset = 0
            while same and offset < width:
                same = letters[other + offset] == letters[begin + offset]
                offset += 1
            if not same:
                slot = (slot + 1) & (table.size - 1)
        if not same:
            table[slot] = place
        counts[table[slot]] += 1
    best = int(np.argmax(counts))
    return int(counts[best]), int(ends[best + size] - ends[best]) + size - 1


@compiled("letters", "places", "points")
def has_word(letters: Codes, ends: Places, word: npt.NDArray[np.uint32]) -> bool:
    """Tell whether a word is among those of a document."""
    for place in range(ends.size - 1):
        begin = ends[place]
        if ends[place + 1] - begin == word.size:
            offset = 0
            while offset < word.size and letters[begin + offset] == word[offset]:
                offset += 1
            if offset == word.size:
                return True
    return False


@compiled("hashes", "hashes", "hashes")
def smallest(hashes: Hashes, factors: Hashes, summands: Hashes) -> Hashes:
    """Return min(factor * hash + summand mod 2^64) over all hashes, for each permutation."""
    best = np.full(factors.size, np.uint64(0xFFFFFFFFFFFFFFFF), np.uint64)
    for place in range(hashes.size):
        for index in range(factors.size):
            best[index] = min(best[index], factors[index] * hashes[place] + summands[index])
    return best
