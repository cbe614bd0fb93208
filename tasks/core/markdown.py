"""The few pieces of Markdown that reports and model cards are made of."""

import re
from collections.abc import Mapping, Sequence

LONG_CELL = 120
"""Characters of a cell that is no longer read in a table."""


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Return rows as a Markdown table; the names of the first row are the head, numbers are set to the right."""
    if not rows:
        return "(none)"
    names = list(rows[0])
    marks = ["---:" if isinstance(rows[0][name], int | float) else "---" for name in names]
    lines = [names, marks, *([_cell(row[name]) for name in names] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def fenced(text: str) -> str:
    """Return any text as a code block that it cannot end: the fence is longer than any in the text."""
    shown = re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", "\N{REPLACEMENT CHARACTER}", text)
    longest = max((len(run) for run in re.findall(r"`+", shown)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{shown}\n{fence}"


def is_prose(rows: Sequence[Mapping[str, object]]) -> bool:
    """Say whether rows hold texts whose line breaks, indentation or length a table would destroy."""
    texts = [value for row in rows for value in row.values() if isinstance(value, str)]
    return any("\n" in text or len(text) > LONG_CELL or text != " ".join(text.split()) for text in texts)


def text_blocks(rows: Sequence[Mapping[str, object]]) -> str:
    """Return rows one below the other, each cell as a code block under its name."""
    return "\n\n".join(f"{inline(name)}:\n\n{fenced(str(cell))}" for row in rows for name, cell in row.items())


def rows_markdown(rows: Sequence[Mapping[str, object]]) -> str:
    """Return rows as a table, or below each other where texts must keep their lines and indentation."""
    return text_blocks(rows) if is_prose(rows) else table(rows)


def inline(text: str) -> str:
    """Return a short text on one line, safe inside a table cell or a sentence."""
    return re.sub(r"([\\`*\[\]<>|])", r"\\\1", " ".join(text.split()))


def _cell(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return inline(str(value))
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
