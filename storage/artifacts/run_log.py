"""The log of a run in the store: readable from every machine while it grows.

No store can append to a file, so the log lies in numbered pieces. The last one is written again as it grows.
"""

import threading
from collections.abc import Iterator

from storage.artifacts.layout import LOGS, checked_name, log_path
from storage.artifacts.store import Store

PIECE_BYTES = 1 << 18
"""A piece that is longer is not touched again: what is written again and again stays small."""


class RunLog:
    """Takes the lines of one run, from any thread; they are in the store after `flush`."""

    def __init__(self, store: Store, run_id: str) -> None:
        self.store = store
        self.run_id = run_id
        self._number = 0
        self._lines: list[str] = []
        self._written = 0
        self._flushing = threading.Lock()

    def add(self, line: str) -> None:
        """Take a line; what it holds of line ends becomes part of the log."""
        self._lines.append(f"{line}\n")

    def flush(self) -> None:
        """Write what is new. Raises: OSError or Fault of the store, which loses nothing."""
        with self._flushing:
            self._flush()

    def _flush(self) -> None:
        if len(self._lines) == self._written:
            return
        count = len(self._lines)
        data = "".join(self._lines[:count]).encode("utf-8", "backslashreplace")
        self.store.backend.write(log_path(self.run_id, self._number), data)
        self._written = count
        if len(data) >= PIECE_BYTES:
            del self._lines[:count]
            self._written = 0
            self._number += 1


def read_log(store: Store, run_id: str, begin: int = 0) -> Iterator[bytes]:
    """Yield the pieces of a run's log in order, from a number on. Nothing if there is none."""
    paths = store.paths(f"{LOGS}/{checked_name(run_id)}")
    while log_path(run_id, begin) in paths:
        yield store.backend.read(log_path(run_id, begin))
        begin += 1
