"""A run in a file or a pipe: a line when a stage ends, for longer ones when they begin and at times between."""

import sys
import threading
import time

from flows.console.wording import NAME_WIDTH, begin_line, finished_text, how_it_goes
from flows.runs.events import Event, RunStarted, StageFinished, StageProgress, StageStarted

BETWEEN_SECONDS, LONGEST_SECONDS = 60.0, 600.0
"""Between two lines of a stage at work, at first and at most: each time twice as long, for it may take weeks."""

BEGIN_SECONDS = 15.0
"""A stage that has ended before is not said to begin: the line of its end comes soon enough."""


class PlainConsole:
    """Prints to standard error, where log lines go as well."""

    def __init__(self) -> None:
        self.said = 0.0
        self.between = BETWEEN_SECONDS
        self.begins = threading.Timer(0.0, lambda: None)

    def hear(self, event: Event) -> None:
        """Print what there is to say of an event."""
        if isinstance(event, RunStarted):
            _say(begin_line(event))
        elif isinstance(event, StageStarted):
            self.said, self.between = time.monotonic(), BETWEEN_SECONDS
            self.begins = threading.Timer(BEGIN_SECONDS, _say, [_line(event, "begins")])
            self.begins.daemon = True
            self.begins.start()
        elif isinstance(event, StageFinished):
            self.begins.cancel()
            _say(_line(event, finished_text(event)))
        elif isinstance(event, StageProgress) and time.monotonic() - self.said >= self.between:
            self.said, self.between = time.monotonic(), min(2 * self.between, LONGEST_SECONDS)
            _say(_line(event, how_it_goes(event)))


def _line(event: StageStarted | StageProgress | StageFinished, text: str) -> str:
    return f"{event.number} of {event.of}  {event.stage:{NAME_WIDTH}} {text}"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
