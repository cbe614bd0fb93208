"""How verbs print their results."""

import json
import shutil
import sys
import textwrap
from typing import Any, TextIO


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    json.dump(value, sys.stdout, indent=1, ensure_ascii=False)
    sys.stdout.write("\n")


def say(text: str, file: TextIO | None = None) -> None:
    """Print sentences, to standard error if they are no result; on a terminal lines are broken between words."""
    file = file or sys.stderr
    if file is None:  # closed by whoever started us: there is nobody to tell
        return
    lines = text.splitlines()
    if file.isatty():
        lines = [part for line in lines for part in _broken(line, shutil.get_terminal_size().columns)]
    print("\n".join(lines), file=file, flush=True)


def _broken(line: str, width: int) -> list[str]:
    """Return the lines that a line becomes; one that is indented is a command, to be copied whole."""
    if line.startswith(" "):
        return [line]
    return textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False) or [""]
