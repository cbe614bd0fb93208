"""Rows as text for people: on a terminal, and in Markdown."""

from itertools import zip_longest
from shutil import get_terminal_size
from textwrap import TextWrapper
from typing import Any

CELL_CHARACTERS = 100
"""Longer cells are cut in the summary page: a sampled text would widen it beyond the screen."""

SHORT_CELL = len("2026-11-28 09:30")

GAP = "  "
"""Between two columns of a text table."""


def text_table(rows: list[dict[str, Any]]) -> str:
    """Return rows as aligned plain text with a head line; numbers to the right.

    As wide as the terminal, and 80 columns where there is none: cells of several words are broken into lines.
    A column in which nothing stands is left out.
    """
    if not rows:
        return "(none)"
    names = [name for name in rows[0] if any(row.get(name, "") != "" for row in rows)]
    cells = [names, *([_cell(row.get(name, "")) for name in names] for row in rows)]
    numeric = [all(isinstance(row.get(name), int | float) for row in rows) for name in names]
    widths = _widths([list(column) for column in zip(*cells, strict=True)], get_terminal_size().columns)
    lines = []
    for row in cells:
        broken = [_broken(text, width) for text, width in zip(row, widths, strict=True)]
        for parts in zip_longest(*broken, fillvalue=""):
            fields = zip(parts, widths, numeric, strict=True)
            line = GAP.join(text.rjust(w) if right else text.ljust(w) for text, w, right in fields)
            lines.append(line.rstrip())
    return "\n".join(lines)


def _widths(columns: list[list[str]], room: int) -> list[int]:
    """Return the widths of the columns: the widest give way, as far as their longest words let them.

    Short cells, such as dates, are broken only where that does not suffice.
    """
    widths = [max(map(len, column)) for column in columns]
    words = [max(len(word) for cell in column for word in (cell.split() or [""])) for column in columns]
    short = [max((len(cell) for cell in column if len(cell) <= SHORT_CELL), default=0) for column in columns]
    for least in ([max(pair) for pair in zip(words, short, strict=True)], words):
        while sum(widths) + len(GAP) * (len(widths) - 1) > room:
            widest = max(range(len(widths)), key=lambda index: (widths[index] > least[index], widths[index]))
            if widths[widest] <= least[widest]:
                break  # no word is cut: a key or a path must be copied whole
            widths[widest] -= 1
    return widths


def _broken(text: str, width: int) -> list[str]:
    if len(text) <= width:
        return [text]
    return TextWrapper(width, break_long_words=False, break_on_hyphens=False).wrap(text)


def markdown_table(rows: list[dict[str, Any]]) -> list[str]:
    """Return rows as the lines of a Markdown table; long cells are cut."""
    if not rows:
        return ["(none)"]
    names = list(rows[0])
    body = ["| " + " | ".join(_cell(row.get(name, ""))[:CELL_CHARACTERS] for name in names) + " |" for row in rows]
    return ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names), *body]


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value).replace("\n", " ").replace("|", "\\|")
