"""A text with marked places as HTML: escaped, as documents are of others, and cut where nothing is to be seen."""

from collections.abc import Iterator, Sequence
from html import escape

Place = tuple[int, int]
"""Where something begins and ends in a text."""

WHOLE = 6000
"""Characters of a text that is shown as it is."""
AROUND = 200
"""Characters that are shown before and behind a place of a longer one."""
LONGEST = 1500
"""Characters of one place that are shown."""

PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n\r"} | {0x7F: 0x2421}
"""Control characters, which HTML cannot hold, and the pictures of them."""


def marked_html(text: str, places: Sequence[Place]) -> str:
    """Return a text with its places in <mark>; of a long one the beginning and what stands around the places.

    What is left out is counted where it stood.
    """
    shown = _shown(text, places)
    parts, end = [], 0
    for begin, stop in shown:
        parts.append(_gap(begin - end))
        parts.extend(_cut(text, begin, stop, places))
        end = stop
    return "".join([*parts, _gap(len(text) - end)])


def plain_html(text: str) -> str:
    """Return text that stands in HTML for itself."""
    return escape(text.translate(PICTURES))


def _shown(text: str, places: Sequence[Place]) -> list[Place]:
    """Return the parts of a text that are shown."""
    if len(text) <= WHOLE:
        return [(0, len(text))] if text else []
    shown, room = [(0, 2 * AROUND)], WHOLE
    for begin, end in places:
        window = max(begin - AROUND, shown[-1][1]), min(min(end, begin + LONGEST) + AROUND, len(text))
        room -= max(window[1] - window[0], 0)
        if room < 0:
            break
        if window[0] == shown[-1][1]:
            window = shown.pop()[0], max(window)
        shown.append(window)
    return shown


def _cut(text: str, begin: int, stop: int, places: Sequence[Place]) -> Iterator[str]:
    """Yield a part of a text, in which the places are marked as far as they reach into it."""
    for first, last in places:
        first, last = max(first, begin), min(last, stop)
        if first < last:
            yield plain_html(text[begin:first])
            yield f"<mark>{_visible(text[first:last])}</mark>"
            begin = last
    yield plain_html(text[begin:stop])


def _visible(text: str) -> str:
    """Return a marked part; one of nothing but white space would not be seen."""
    if text.strip():
        return plain_html(text)
    return plain_html(text.replace("\r\n", "\n").replace("\n", "↵\n").replace(" ", "·"))


def _gap(characters: int) -> str:
    return f'<span class="gap"> … {characters:,} characters … </span>' if characters else ""
