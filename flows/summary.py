"""What people read after a run: one line per stage, and the numbers of the evaluation."""

import json
from collections.abc import Mapping
from typing import Any

from storage.artifacts.store import Artifact
from storage.wording import counted, duration, size
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

DETAILS = ("Training", "Bits per byte", "Samples")
"""Tables that the end of a run leaves to `pile show`: its baselines and the warnings fit a screen."""


def stage_rows(results: Mapping[str, StageResult]) -> list[dict[str, str]]:
    """Return one row of text per stage: stage, state, time, key, what it holds."""
    return [
        {
            "stage": name,
            "state": "cached" if result.cached else "done",
            "time": duration(result.seconds),
            "key": result.artifact.manifest.key,
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


def tables(artifact: Artifact) -> dict[str, list[dict[str, Any]]]:
    """Return the tables that a stage wrote about its result."""
    found: dict[str, list[dict[str, Any]]] = json.loads(artifact.report(TABLES) or b"{}")
    return found
