"""The verb that lists what can be named in a recipe: the members of every seam."""

import argparse
from typing import Any

from flows.command.output import print_json
from flows.plugins import registries
from flows.tables import text_table
from storage.registry import Entry, Registry


def plugins(options: argparse.Namespace) -> int:
    """List the members; exit code 1 if one cannot be used."""
    rows = [_row(registry, entry) for registry in registries().values() for entry in registry.lines]
    print_json(rows) if options.json else print(text_table(rows))
    return 1 if any(row["problem"] for row in rows) else 0


def _row(registry: Registry[Any], entry: Entry) -> dict[str, str]:
    return {
        "seam": registry.kind,
        "member": entry.name,
        "package": f"{entry.package} {entry.version}".strip(),
        "place": entry.place,
        "problem": str(registry.problem(entry) or ""),
    }
