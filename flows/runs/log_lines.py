"""What is logged in a run, as events; also what was logged before the run had a record to keep it with."""

import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace

from flows.runs.events import Logged
from tasks.core.loggers import heard_by

MOST_EARLY = 10_000
"""Lines that are kept for a run to begin; of more the last."""


class _LogLines(logging.Handler):
    """Hands on an event for every log line; a logged exception brings its traceback."""

    def __init__(self, run_id: str, take: Callable[[Logged], object]) -> None:
        super().__init__(logging.INFO)
        self.run_id = run_id
        self.take = take

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)  # the message, and the traceback below it
        self.take(Logged(run=self.run_id, level=record.levelname.lower(), logger=record.name, message=text))


@contextlib.contextmanager
def hearing(run_id: str, take: Callable[[Logged], object]) -> Iterator[None]:
    """Hand on what is logged from here on, from INFO on."""
    with heard_by(_LogLines(run_id, take)):
        yield


class _Early:
    def __init__(self) -> None:
        self.lines: deque[Logged] = deque(maxlen=MOST_EARLY)
        self.is_taken = False

    def keep(self, line: Logged) -> None:
        if not self.is_taken:
            self.lines.append(line)


_early: list[_Early] = []
"""At most one: the command's, or that of the flow where no command began."""


@contextlib.contextmanager
def kept_until_the_run_begins() -> Iterator[None]:
    """Keep what is logged for the log of the first run that begins in here. Does nothing inside itself."""
    if _early:
        yield
        return
    early = _Early()
    _early.append(early)
    try:
        with hearing("", early.keep):
            yield
    finally:
        _early.remove(early)


def early_lines(run_id: str) -> list[Logged]:
    """Return, once, what was logged before this run began."""
    if not _early or _early[0].is_taken:
        return []
    _early[0].is_taken = True
    return [replace(line, run=run_id) for line in _early[0].lines]
