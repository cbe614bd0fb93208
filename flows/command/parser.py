"""The arguments of `pile`, and its help: for terminals of 80 columns, with an example for every verb."""

import argparse
import importlib.metadata
import shutil
from collections.abc import Generator
from typing import Any

from flows.command.verbs import VERBS


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all verbs."""
    parser = argparse.ArgumentParser(
        prog="pile", description="From raw text to a published language model.", formatter_class=_Help,
        epilog="example: pile run demo (raw text to a model on this machine, in minutes)",
    )  # fmt: skip
    _add_loudness(parser, default=False)
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    parser.set_defaults(verb=None)
    verbs = parser.add_subparsers(title="verbs", metavar="VERB")
    for name, verb in VERBS.items():
        added = verbs.add_parser(
            name, help=verb.about, description=verb.about, formatter_class=_Help, epilog=f"example: {verb.example}"
        )
        added.set_defaults(verb=verb, verb_name=name, parser=parser)
        added.add_argument("--store", help="folder or s3:// URL (default: PILE_STORE, else ./pile-store)")
        _add_loudness(added, default=argparse.SUPPRESS)
        verb.options(added)
        if verb.has_json:
            added.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _add_loudness(parser: argparse.ArgumentParser, default: bool | str) -> None:
    """Add options that may stand before the verb and behind it."""
    parser.add_argument("--quiet", action="store_true", default=default, help="only results and errors")
    parser.add_argument("--verbose", action="store_true", default=default, help="show every log line")


class _Help(argparse.HelpFormatter):
    """Help for terminals of 80 columns, also in wider ones: long lines are hard to read."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=min(shutil.get_terminal_size().columns, 80) - 2)

    def _iter_indented_subactions(self, action: argparse.Action) -> Generator[argparse.Action, None, None]:
        """Yield the verbs, not further in than options: argparse reckons their column without the indentation."""
        if isinstance(action, argparse._SubParsersAction):
            yield from action._get_subactions()


class _Version(argparse.Action):
    """Prints the version, which is looked up only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(f"pile-pipeline {importlib.metadata.version('pile-pipeline')}")
        parser.exit()
