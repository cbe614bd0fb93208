"""Places in a text for people to look at, what `Rule.places` is made of. Plain and slow: for single texts."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

Place = tuple[int, int]
"""Where something begins and ends in a text."""

WORD = re.compile(r"\S+")
"""What `str.split` finds: `\\s` is what `str.isspace` says."""

MOST_PLACES = 1000
"""Of the words that a rule counts against a document: whoever has seen so many needs no more."""


def merged(places: Iterable[Place]) -> list[Place]:
    """Return places in their order; those that meet become one, and empty ones none."""
    found: list[Place] = []
    for begin, end in sorted(places):
        if begin >= end:
            continue
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((begin, end))
    return found


def words(text: str) -> list[Place]:
    """Return the words between white space."""
    return [match.span() for match in WORD.finditer(text)]


def lines(text: str) -> list[Place]:
    """Return the lines without their ends, as `str.splitlines` finds them."""
    begin, found = 0, []
    for line, whole in zip(text.splitlines(), text.splitlines(keepends=True), strict=True):
        found.append((begin, begin + len(line)))
        begin += len(whole)
    return found


def pieces(text: str, separator: str) -> list[Place]:
    """Return what stands between separators, as `str.split` finds it, empty pieces too."""
    begin, found = 0, []
    for piece in text.split(separator):
        found.append((begin, begin + len(piece)))
        begin += len(piece) + len(separator)
    return found


def paragraphs(text: str) -> list[Place]:
    """Return what stands between empty lines, as `DocumentView.paragraphs` does."""
    before = len(text) - len(text.lstrip())
    stripped = text.strip()
    found = []
    for begin, end in pieces(stripped, "\n\n"):
        part = stripped[begin:end]
        left = begin + len(part) - len(part.lstrip("\n"))
        if size := len(part.strip("\n")):
            found.append((before + left, before + left + size))
    return found


def occurrences(text: str, *wanted: str) -> list[Place]:
    """Return where any of these stand, each counted as `str.count` does."""
    return merged(match.span() for one in wanted for match in re.finditer(re.escape(one), text))


def repeats(text: str, places: Iterable[Place]) -> Iterator[Place]:
    """Yield the places whose text stood at an earlier one."""
    seen: set[str] = set()
    for begin, end in places:
        if (found := text[begin:end]) in seen:
            yield begin, end
        seen.add(found)


def most_frequent(text: str, size: int) -> list[Place]:
    """Return where the most frequent run of `size` words stands; of several the one that occurs first."""
    found = words(text)
    said = [text[begin:end] for begin, end in found]
    runs = [tuple(said[place : place + size]) for place in range(len(found) - size + 1)]
    if not runs:
        return []
    (most, _), *_ = Counter(runs).most_common(1)
    return merged((found[place][0], found[place + size - 1][1]) for place, run in enumerate(runs) if run == most)


def repeated_runs(text: str, size: int) -> list[Sequence[Place]]:
    """Return the words of each run of `size` words that repeats an earlier one, stepped over as datatrove does.

    Two runs are equal if their letters are, wherever their words end.
    """
    found = words(text)
    said = [text[begin:end] for begin, end in found]
    seen: set[str] = set()
    repeated: list[Sequence[Place]] = []
    place = 0
    while place <= len(found) - size:
        letters = "".join(said[place : place + size])
        if letters in seen:
            repeated.append(found[place : place + size])
            place += size
        else:
            seen.add(letters)
            place += 1
    return repeated


def lowered(text: str) -> tuple[str, Sequence[int]]:
    """Return a text in lower case, and where each character of that stands in the text, its end included.

    One letter becomes two characters, the dotted capital I.
    """
    lower = text.lower()
    if len(lower) == len(text):
        return lower, range(len(text) + 1)
    return lower, [*(place for place, letter in enumerate(text) for _ in letter.lower()), len(text)]
