"""Loops over the characters and words of one document."""

import numpy as np
import numpy.typing as npt

from tasks.core.compiling import BASE, HALF, Codes, Hashes, Hashes32, Places, compiled, mixed

SPACE, LETTER, MARK, BLANK, DIGIT, SEPARATOR, CONTEXT, KNOWN = (1 << bit for bit in range(8))
"""Classes of a character: white space; `isalpha`; of datatrove's PUNCTUATION_SET; normalised to a blank; of a
number; stands between its digits; normalised as its neighbours demand; looked up already."""

HAS_LETTER, ONLY_MARKS = 1, 2
"""What the flags of a word say."""

NOTHING = np.uint32(0xFFFFFFFF)
ALONE = np.uint32(0x40000000)
"""Added to the normal form of a character that is a word by itself, since its script has no blanks."""
SEVERAL = np.uint32(0x80000000)
"""From here on a normal form is a place among the expansions, where their number comes first."""

UNKNOWN = -1
"""Number of words of a text with a character that no table knows yet."""

ZERO, ONE = np.uint64(ord("0") + 1), np.uint64(1)


@compiled("codes", "bytes", "points", "points", "number", "letters", "places", "hashes", "bytes", "hashes")
def scan(
    codes: Codes,
    classes: npt.NDArray[np.uint8],
    forms: npt.NDArray[np.uint32],
    expansions: npt.NDArray[np.uint32],
    keep_numbers: int,
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
        forms: The normal form of each character: a code point, with ALONE or not, NOTHING, or SEVERAL plus a place
            in `expansions`.
        expansions: Their number and the code points of normal forms that are several.
        keep_numbers: Whether numbers are words like others, and not all normalised to `0`.
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
        if kind & DIGIT and not keep_numbers:
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
        if form < SEVERAL and form & ALONE:
            if in_normal:
                normalised[found] = mixed(normal)
                found += 1
            normalised[found] = mixed(np.uint64(form - ALONE) + ONE)
            found += 1
            in_normal, normal = False, np.uint64(0)
        elif form < SEVERAL:
            normal = normal * BASE + np.uint64(form) + ONE
            in_normal = True
        elif form != NOTHING:
            start = form - SEVERAL
            for index in range(start + 1, start + 1 + expansions[start]):
                normal = normal * BASE + np.uint64(expansions[index]) + ONE
            in_normal = True
    return words, UNKNOWN if needs_context else found


@compiled("places", "bytes")
def count_words(ends: Places, flags: npt.NDArray[np.uint8]) -> tuple[int, int, int]:
    """Return how many words are more than marks, how many characters those have, and how many have a letter."""
    found, characters, lettered = 0, 0, 0
    for word in range(flags.size):
        if not flags[word] & ONLY_MARKS:
            found += 1
            characters += ends[word + 1] - ends[word]
        lettered += (flags[word] & HAS_LETTER) != 0
    return found, characters, lettered


@compiled("number")
def empty_table(entries: int) -> npt.NDArray[np.int32]:
    """Return a hash table of free slots, twice as many as entries at least, and a power of two."""
    slots = 16
    while slots < 2 * entries:
        slots *= 2
    return np.full(slots, -1, np.int32)


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


@compiled("hashes", "number")
def shingle_hashes(words: Hashes, size: int) -> Hashes32:
    """Return a hash of each run of `size` neighbouring words, in order; words are given as hashes."""
    count = max(words.size - size + 1, 0)
    hashes = np.empty(count, np.uint32)
    for place in range(count):
        hashed = words[place]
        for offset in range(1, size):
            hashed = mixed(hashed * BASE) + words[place + offset]
        hashes[place] = np.uint32(mixed(hashed * BASE) >> HALF)
    return hashes


@compiled("points")
def first_of_each(values: Hashes32) -> int:
    """Move the distinct ones of ascending values to the front; return how many there are."""
    count = 0
    for place in range(values.size):
        if count == 0 or values[place] != values[count - 1]:
            values[count] = values[place]
            count += 1
    return count
