"""The verb that shows what can be named in a recipe: the members of every seam, and their fields."""

import argparse
import textwrap
from typing import Any

from flows.command.fields import COLUMNS, about, default_lines, default_rows
from flows.command.output import print_json
from flows.plugins import CONFIGS, registries
from flows.tables import text_table
from storage.errors import InputError
from storage.registry import Entry, Registry
from storage.suggestions import did_you_mean


def plugins(options: argparse.Namespace) -> int:
    """List the members, or the fields of one; exit code 1 if one cannot be used."""
    if options.member is not None:
        return _show_fields(options)
    rows = [_row(registry, entry) for registry in _chosen(options.seam).values() for entry in registry.lines]
    shown = [{name: text for name, text in row.items() if name != "reference"} for row in rows]
    print_json(rows) if options.json else print(text_table(shown))
    return 1 if any(row["problem"] for row in rows) else 0


def _show_fields(options: argparse.Namespace) -> int:
    [(module, registry)] = _chosen(options.seam).items()
    member = registry.get(options.member)
    if module not in CONFIGS:
        words = ", ".join(_word(registries()[module]) for module in CONFIGS)
        raise InputError(
            f"to show fields the seam must be one that a recipe chooses ({words}), "
            f"found {options.seam!r}: its members have nothing to choose"
        )
    config = CONFIGS[module](member)
    if options.json:
        print_json(default_rows(config))
        return 0
    print(textwrap.fill(f"{options.member}: {about(config)}", COLUMNS, subsequent_indent="  "))
    for line in default_lines(config):
        print(f"  {line}")
    return 0


def _chosen(seam: str | None) -> dict[str, Registry[object]]:
    """Return the registries by their modules: all, or that of a seam, whose last word is enough (`rule`)."""
    known = registries()
    if seam is None:
        return known
    chosen = {module: registry for module, registry in known.items() if seam in (registry.kind, _word(registry))}
    if not chosen:
        words = ", ".join(map(_word, known.values()))
        raise InputError(
            f"a seam must be one of {words}, found {seam!r}{did_you_mean(seam, map(_word, known.values()))}"
        )
    return chosen


def _word(registry: Registry[Any]) -> str:
    return registry.kind.split()[-1]


def _row(registry: Registry[Any], entry: Entry) -> dict[str, str]:
    return {
        "seam": registry.kind,
        "member": entry.name,
        "package": f"{entry.package} {entry.version}".strip(),
        "reference": entry.reference,
        "problem": str(registry.problem(entry) or ""),
    }
