"""The `pile` command: reads arguments, turns errors into one line and an exit code.

Exit codes: 0 done, 1 failed, 2 bad input, 75 told to stop and can be continued, 130 Ctrl-C. What a verb does is
imported when it is chosen: `pile --help` is quick.
"""

import argparse
import contextlib
import errno
import logging
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from traceback import TracebackException
from typing import TextIO

from flows.command.output import say
from flows.command.parser import build_parser
from flows.command.verbs import VERBS, Verb
from flows.service.settings import quick_imports
from storage.errors import Fault, InputError
from storage.notice import NOTICE
from storage.registry import load
from storage.suggestions import did_you_mean
from tasks.core.loggers import LOGGERS
from tasks.core.stopping import STOPPED_EXIT_CODE, is_termination, raise_when_told

DEBUG = "PILE_DEBUG"
"""Environment variable that shows the whole trace of an error."""


class _StandardError(logging.StreamHandler[TextIO]):
    """Writes to what is standard error at that moment: a terminal that draws a run takes its place meanwhile."""

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    @stream.setter
    def stream(self, _: TextIO) -> None:
        pass


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and leave with its exit code."""
    parser = build_parser()
    given = list(sys.argv[1:] if arguments is None else arguments)
    word = next((argument for argument in given if not argument.startswith("-")), None)
    if word is not None and word not in VERBS:
        known = ", ".join(VERBS)
        say(f"pile: a verb must be one of {known}, found {word!r}{did_you_mean(word, VERBS)}")
        sys.exit(2)
    options = parser.parse_args(given)
    verb: Verb | None = options.verb
    if verb is None:
        parser.print_help()
        sys.exit(0)
    raise_when_told()
    if verb.serves:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    _show_log_lines(_log_level(options))
    try:
        with quick_imports():
            carry_out = load(verb.reference)
        code = int(carry_out(options))
        sys.stdout.flush()
    except SystemExit:
        raise
    except BaseException as error:  # noqa: BLE001 - the last line of defence before the user
        if isinstance(error, BrokenPipeError) and not verb.runs:  # who reads has seen enough: `pile ls | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)
        message, code = _outcome(error, verb)
        notes = TracebackException.from_exception(error).__notes__ or ()
        with contextlib.suppress(OSError):  # the terminal may be closed, which is why we stop
            if os.environ.get(DEBUG):
                traceback.print_exc()
            say("\n".join([f"pile: {message}", *notes]))
    sys.exit(code)


def _log_level(options: argparse.Namespace) -> int:
    """Return the level from which on log lines are shown. A run shows how far it is instead; its log has all."""
    if options.quiet:
        return logging.ERROR
    return logging.INFO if options.verbose or not options.verb.runs else NOTICE


def _show_log_lines(level: int) -> None:
    handler = _StandardError()
    handler.setLevel(level)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO)
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


def _outcome(error: BaseException, verb: Verb) -> tuple[str, int]:
    """Return what is said of what ended a command, and its exit code."""
    if is_termination(error):
        return "cancelled", STOPPED_EXIT_CODE if verb.runs else 128 + signal.SIGTERM
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", 128 + signal.SIGINT
    if isinstance(error, InputError):
        return str(error), 2
    if isinstance(error, Fault):
        return str(error), 1
    if isinstance(error, NotADirectoryError):
        return f"{error.filename} must be inside a folder, but a file is in the way; use another --store", 2
    if isinstance(error, OSError):
        return _explain(error), 1
    return f"unexpected {type(error).__name__}: {error}; set {DEBUG}=1 to see where", 1


if __name__ == "__main__":
    main()
