"""Numbers and rows as text for people: on a terminal, and in Markdown."""

from typing import Any

CELL_CHARACTERS = 100
"""Longer cells are cut in the summary page: a sampled text would widen it beyond the screen."""


def counted(count: int, noun: str) -> str:
    """Return a number with its noun, given in the plural: `1 file`, `2 files`."""
    return f"{count:,} {noun if count != 1 else noun.removesuffix('s')}"


def size(count: float) -> str:
    """Return a number of bytes for people, in powers of ten."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def age(seconds: float) -> str:
    """Return a span of time for people, in one unit: `3 days`."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= length:
            return counted(int(seconds // length), unit)
    return counted(max(0, int(seconds)), "seconds")


def text_table(rows: list[dict[str, Any]]) -> str:
    """Return rows as aligned plain text with a head line; numbers to the right."""
    if not rows:
        return "(none)"
    names = list(rows[0])
    cells = [[_cell(row.get(name, "")) for name in names] for row in rows]
    widths = [max(len(name), *(len(line[i]) for line in cells)) for i, name in enumerate(names)]
    numeric = [all(isinstance(row.get(name), int | float) for row in rows) for name in names]

    def aligned(line: list[str]) -> str:
        fields = zip(line, widths, numeric, strict=True)
        return "  ".join(text.rjust(w) if right else text.ljust(w) for text, w, right in fields).rstrip()

    return "\n".join([aligned(names), *(aligned(line) for line in cells)])


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
