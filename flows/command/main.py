"""The `pile` command: reads arguments, turns errors into one line and an exit code.

Exit codes: 0 done, 1 failed, 2 bad input. What a verb does is imported when it is chosen: `pile --help` is quick.
"""

import argparse
import errno
import importlib.metadata
import logging
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from flows.command.verbs import VERBS, Verb
from storage.errors import Fault, InputError
from storage.registry import load
from storage.suggestions import did_you_mean
from tasks.core.loggers import LOGGERS

DEBUG = "PILE_DEBUG"
"""Environment variable that shows the whole trace of an error."""


class _Terminated(KeyboardInterrupt):
    """SIGTERM, raised where the program is, so that everything is cleaned up on the way out."""


def _terminate(*_: object) -> None:
    raise _Terminated


class _Help(argparse.HelpFormatter):
    """Help for terminals of 80 columns, also in wider ones: long lines are hard to read."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=min(shutil.get_terminal_size().columns, 80) - 2)


class _Version(argparse.Action):
    """Prints the version, which is looked up only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(f"pile-pipeline {importlib.metadata.version('pile-pipeline')}")
        parser.exit()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and leave with its exit code."""
    parser = build_parser()
    given = list(sys.argv[1:] if arguments is None else arguments)
    word = next((argument for argument in given if not argument.startswith("-")), None)
    if word is not None and word not in VERBS:
        sys.exit(_fail(f"a verb must be one of {', '.join(VERBS)}, found {word!r}{did_you_mean(word, VERBS)}", 2))
    options = parser.parse_args(given)
    verb: Verb | None = options.verb
    if verb is None:
        parser.print_help()
        sys.exit(0)
    signal.signal(signal.SIGTERM, _terminate)
    if verb.serves:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    _show_log_lines(logging.WARNING if options.quiet else logging.INFO)
    try:
        code = int(load(verb.reference)(options))
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output has seen enough, as in `pile ls | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except _Terminated:
        code = _fail(f"terminated{_goes_on(verb)}", 143)
    except KeyboardInterrupt:
        code = _fail(f"interrupted{_goes_on(verb)}", 130)
    except InputError as error:
        code = _fail(str(error), 2)
    except Fault as error:
        code = _fail(str(error), 1)
    except NotADirectoryError as error:
        code = _fail(f"{error.filename} must be inside a folder, but a file is in the way; use another --store", 2)
    except OSError as error:
        code = _fail(_explain(error), 1)
    except Exception as error:  # noqa: BLE001 - the last line of defence before the user
        code = _fail(f"unexpected {type(error).__name__}: {error}; set {DEBUG}=1 to see where", 1)
    sys.exit(code)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all verbs."""
    parser = argparse.ArgumentParser(
        prog="pile", description="From raw text to a published language model.", formatter_class=_Help,
        epilog="example: pile run demo (raw text to a model on this machine, in minutes)",
    )  # fmt: skip
    parser.add_argument("--quiet", action="store_true", help="no log lines, only results and errors")
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    parser.set_defaults(verb=None)
    verbs = parser.add_subparsers(title="verbs", metavar="VERB")
    for name, verb in VERBS.items():
        added = verbs.add_parser(
            name, help=verb.about, description=verb.about, formatter_class=_Help, epilog=f"example: {verb.example}"
        )
        added.set_defaults(verb=verb)
        added.add_argument("--store", help="folder or s3:// URL (default: PILE_STORE, else ./pile-store)")
        verb.options(added)
        if verb.has_json:
            added.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _show_log_lines(level: int) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(level)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.addHandler(handler)
        logger.propagate = False  # Prefect's lines, traces included, go to its own log and not to our console


def _explain(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"there must be room on the disk of {error.filename or 'the store'}, but it is full; free some, or "
            f"use another --store or PILE_SCRATCH, and run again: finished parts are kept"
        )
    if error.errno == errno.EROFS:
        return f"the store must be writable, but its disk is read-only ({error.filename}); use another --store"
    if isinstance(error, PermissionError):
        return f"{error.filename} must be readable and writable, but access was denied; mend its permissions"
    return f"the operating system refused: {error}"


def _goes_on(verb: Verb) -> str:
    return "; the next run continues from the parts that are finished" if verb.leaves_parts else ""


def _fail(message: str, code: int) -> int:
    if os.environ.get(DEBUG):
        traceback.print_exc()
    print(f"pile: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
