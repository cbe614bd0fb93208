"""Loops over windows of neighbouring words of one document: which come back, and how often."""

import numpy as np

from tasks.core.compiling import BASE, MIXER, Codes, Hashes, Places, compiled, mixed
from tasks.filter.kernels import ONE, empty_table


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


@compiled("places", "number")
def longest(ends: Places, size: int) -> int:
    """Return the characters of the longest window of `size` words, blanks between included."""
    most = 0
    for word in range(ends.size - size):
        most = max(most, ends[word + size] - ends[word])
    return most + size - 1


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
