"""A run for programs: one JSON object a line on standard output; docs/events.md lists them."""

import json
import sys
import time

from flows.runs.events import Event, StageProgress

BETWEEN_SECONDS = 1.0
"""Between two reports of progress: a training makes hundreds a second."""


class JsonLines:
    """Prints events as JSON lines."""

    def __init__(self) -> None:
        self.said = 0.0

    def hear(self, event: Event) -> None:
        """Print an event; of progress no more than can be looked at, and the last of every stage."""
        if isinstance(event, StageProgress):
            if time.monotonic() - self.said < BETWEEN_SECONDS and event.done < event.total:
                return
            self.said = time.monotonic()
        sys.stdout.write(f"{json.dumps(event.to_json(), ensure_ascii=False)}\n")  # whole, whichever thread tells
        sys.stdout.flush()
