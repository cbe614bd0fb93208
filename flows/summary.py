"""What people read after a run: one line per stage, and the numbers of the evaluation."""

import json
from collections.abc import Mapping
from typing import Any

from flows.runs import Request
from storage.artifacts.store import Artifact
from tasks.core.context import TABLES
from tasks.core.stage import StageResult

MAIN_COUNTS = {
    "documents": "documents",
    "text_bytes": "of text",
    "dropped": "dropped",
    "vocab_size": "tokens in the vocabulary",
    "tokens": "tokens",
    "sequences": "sequences",
    "parameters": "parameters",
    "steps": "steps",
}
"""The counts that say most about an artifact, in the order in which they are shown."""


CELL_CHARACTERS = 100
"""Longer cells are cut in the summary page: a sampled text would widen it beyond the screen."""


def stage_rows(results: Mapping[str, StageResult]) -> list[dict[str, str]]:
    """Return one row of text per stage: stage, state, seconds, artifact, what it holds."""
    return [
        {
            "stage": name,
            "state": "cached" if result.cached else "done",
            "seconds": f"{result.seconds:.1f}",
            "artifact": result.artifact.ref,
            "holds": describe(result.artifact.counts),
        }
        for name, result in results.items()
    ]


def describe(counts: Mapping[str, int]) -> str:
    """Return the main counts as a short phrase."""
    shown = []
    for name, meaning in MAIN_COUNTS.items():
        if name in counts:
            count = counts[name]
            shown.append(f"{size(count)} {meaning}" if name.endswith("bytes") else counted(count, meaning))
    return ", ".join(shown)


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


def summary_markdown(request: Request, run_id: str, results: Mapping[str, StageResult]) -> str:
    """Return the page about a run that the Prefect UI shows."""
    lines = [
        f"Run `{run_id}` of recipe **{request.recipe.name}** up to **{request.target}**.",
        f"Store: `{request.store.url}`",
        "",
        *_markdown_table(stage_rows(results)),
    ]
    for name in ("train", "evaluate", "publish"):
        if name in results:
            for title, rows in tables(results[name].artifact).items():
                lines += ["", f"### {title}", "", *_markdown_table(rows)]
    return "\n".join(lines)


def tables(artifact: Artifact) -> dict[str, list[dict[str, Any]]]:
    """Return the tables that a stage wrote about its result."""
    found: dict[str, list[dict[str, Any]]] = json.loads(artifact.report(TABLES) or b"{}")
    return found


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


def _markdown_table(rows: list[dict[str, Any]]) -> list[str]:
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
