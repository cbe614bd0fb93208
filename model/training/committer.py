"""Checkpoints on their way into the store, while the training goes on.

A checkpoint is first written to this machine's disk, where it outlives the process, then committed by a thread. A
store that is away keeps nobody from training: the newest checkpoint waits, older ones that wait are dropped. So
at most three are on the disk: the one being committed, the one that waits, the one being written.
"""

import logging
import threading
from collections.abc import Sequence

from storage.artifacts.pending import commit_pending, drop_pending
from storage.artifacts.writer import ArtifactWriter
from storage.errors import StoreAwayError

log = logging.getLogger(__name__)

STOP_SECONDS = 20.0
"""How long a training that is told to stop waits for a commit under way; torchrun kills it after 30 s."""


LOOK_SECONDS = 0.1
"""How often whoever waits for a commit looks whether the store is away."""


class Committer:
    """Commits checkpoints one at a time, and discards the oldest of those that are committed."""

    def __init__(self, writer: ArtifactWriter, committed: Sequence[str], keep: int) -> None:
        self._writer = writer
        self._committed = list(committed)
        self._keep = keep
        self._changed = threading.Condition()
        self._waiting: str | None = None
        self._busy = False
        self._last = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="checkpoints", daemon=True)
        self._thread.start()

    def submit(self, part: str) -> bool:
        """Have a pending part committed, in place of an older one that waits; tell whether it is.

        Waits for a store that answers, however slowly; not for one that is away. Raises: as `check`.
        """
        self.check()
        with self._changed:
            overtaken, self._waiting = self._waiting, part
            self._changed.notify_all()
        if overtaken is not None:
            drop_pending(self._writer, overtaken)
        with self._changed:
            while self._is_at_work() and not self._writer.store.away:
                self._changed.wait(LOOK_SECONDS)
        self.check()
        return not self._is_at_work()

    def check(self) -> None:
        """Raise the error that ended the committing, if any: the training must end, too."""
        if self._error is not None:
            raise self._error

    def finish(self) -> None:
        """Wait until everything is committed. Raises: as `check`; StoreAwayError when the patience is over."""
        self.close()
        self._thread.join()
        self.check()

    def stop(self) -> bool:
        """Wait for a store that answers, but not for one that is away; tell whether everything is committed.

        What is not stays on this machine, for the next attempt here.
        """
        self.close()
        self._writer.store.stop_waiting()
        self._thread.join(STOP_SECONDS)
        if self._thread.is_alive() or isinstance(self._error, StoreAwayError):
            return False
        self.check()
        return True

    def close(self) -> None:
        """Commit what was submitted and then end, waiting for nothing."""
        with self._changed:
            self._last = True
            self._changed.notify_all()

    def _is_at_work(self) -> bool:
        return self._error is None and (self._busy or self._waiting is not None)

    def _run(self) -> None:
        try:
            while (part := self._next()) is not None:
                self._commit(part)
        except BaseException as error:  # noqa: BLE001 - raised again in the training's thread
            self._error = error

    def _next(self) -> str | None:
        with self._changed:
            self._busy = False
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._waiting is not None or self._last)
            part, self._waiting = self._waiting, None
            self._busy = part is not None
            return part

    def _commit(self, part: str) -> None:
        try:
            commit_pending(self._writer, part)
            if part in self._committed:  # an earlier attempt came as far
                self._committed.remove(part)
            self._committed.append(part)
            while len(self._committed) > self._keep:
                self._writer.discard(self._committed[0])
                del self._committed[0]
        except StoreAwayError as error:
            self._postpone(part, error)

    def _postpone(self, part: str, error: StoreAwayError) -> None:
        """Try again, with a newer part if there is one: however long the store is away, the training goes on."""
        with self._changed:
            if self._last:
                raise error
            if part in self._committed:  # only older ones could not be discarded; the next time does it
                return
            newer, self._waiting = self._waiting, self._waiting or part
        log.warning("checkpoint %s is on this machine only: %s", newer or part, error)
        if newer is not None:
            drop_pending(self._writer, part)
