"""Patience with a store that is away for a while: any backend, each of whose calls is tried again.

Away is what a while may heal: StoreAwayError, and the errors of a disk whose mount or network is gone. Everything
else ends at once: a full disk, a missing file, refused credentials stay what they are.
"""

import errno
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from storage.backends.base import StoreBackend
from storage.errors import StoreAwayError
from storage.wording import duration

log = logging.getLogger(__name__)

T = TypeVar("T")

FIRST_DELAY_SECONDS = 0.5
"""Before the second try; doubled for each further one."""

LONGEST_DELAY_SECONDS = 15.0
"""Between two tries: a store that comes back is noticed within this time, and the time that a try takes."""

LOOK_SECONDS = 0.1
"""How often whoever waits looks whether waiting has been called off."""

AWAY = frozenset(
    {
        *(errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ENODEV, errno.ENXIO, errno.ETIMEDOUT, errno.EPIPE),
        *(errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED, errno.ESHUTDOWN, errno.EHOSTDOWN),
        *(errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET),
    }
)
"""What the operating system says of a disk that is unplugged, or of a network folder whose server is gone."""


def is_away(error: BaseException) -> bool:
    """Tell whether a call failed for want of the store, and may succeed in a while."""
    return isinstance(error, StoreAwayError) or (isinstance(error, OSError) and error.errno in AWAY)


class PatientBackend(StoreBackend):
    """Another backend, whose calls wait for a store that is away, each for up to `patience` seconds.

    Tries again with growing, random pauses, so that many processes do not come back at once. The first call to
    find the store away says so on the log, and the first to find it back. When the patience is over the call ends
    in a StoreAwayError. Waiting ends at once with an exception that a signal raises, and with `stop_waiting`.
    """

    def __init__(self, inner: StoreBackend, patience: float) -> None:
        self.inner = inner
        self.url = inner.url
        self.exact_create = inner.exact_create
        self.must_exist = inner.must_exist
        self.patience = patience
        self._stopped = False
        self._lock = threading.Lock()
        self._away_since: float | None = None

    def stop_waiting(self) -> None:
        """Let every call that waits, and all later ones, fail at once if the store is away.

        May be called from a signal handler. For whoever is told to stop, and cleans up behind itself.
        """
        self._stopped = True

    @property
    def away(self) -> bool:
        """Whether the store did not answer when it was last asked."""
        return self._away_since is not None

    def probe(self) -> None:
        """Wait until the root answers."""
        self._patiently(self.inner.probe)

    def read(self, path: str) -> bytes:
        """Return the content."""
        return self._patiently(lambda: self.inner.read(path))

    def write(self, path: str, data: bytes) -> None:
        """Write; the same bytes again if it is unknown whether they arrived."""
        self._patiently(lambda: self.inner.write(path, data))

    def create(self, path: str, data: bytes) -> bool:
        """Write only if absent; what an earlier try has left counts as this one's."""
        tries = 0

        def once() -> bool:
            nonlocal tries
            tries += 1
            if self.inner.create(path, data):
                return True
            if tries == 1:
                return False
            try:  # the first try may have arrived although its answer did not
                return self.inner.read(path) == data
            except FileNotFoundError:
                return False

        return self._patiently(once)

    def put(self, local: Path, path: str) -> None:
        """Take over the local file, from its beginning at each try."""
        size = local.stat().st_size
        tries = 0

        def once() -> None:
            nonlocal tries
            tries += 1
            try:
                self.inner.put(local, path)
            except FileNotFoundError:
                # An earlier try has moved it, and failed at what comes after.
                if tries == 1 or local.exists() or self.inner.size(path) != size:
                    raise

        self._patiently(once)

    def fetch(self, path: str, local: Path) -> None:
        """Copy the file, from its beginning at each try."""
        self._patiently(lambda: self.inner.fetch(path, local))

    def size(self, path: str) -> int:
        """Return the size in bytes."""
        return self._patiently(lambda: self.inner.size(path))

    def digest(self, path: str) -> tuple[int, str]:
        """Read and hash the file, from its beginning at each try."""
        return self._patiently(lambda: self.inner.digest(path))

    def list(self, folder: str) -> Iterator[tuple[str, int, float]]:
        """Yield what one whole listing found."""
        yield from self._patiently(lambda: [*self.inner.list(folder)])

    def delete(self, path: str) -> None:
        """Remove the file."""
        self._patiently(lambda: self.inner.delete(path))

    def local(self, path: str) -> Path | None:
        """Return where the file lies on this machine; touches nothing."""
        return self.inner.local(path)

    def scratch(self) -> Path | None:
        """Return the folder for unfinished work; touches nothing."""
        return self.inner.scratch()

    def unfinished(self) -> Iterator[tuple[str, int, float]]:
        """Yield what one whole listing found."""
        yield from self._patiently(lambda: [*self.inner.unfinished()])

    def abandon(self, name: str) -> None:
        """Throw away what an unfinished write has left."""
        self._patiently(lambda: self.inner.abandon(name))

    def _patiently(self, call: Callable[[], T]) -> T:
        deadline, delay = None, FIRST_DELAY_SECONDS
        while True:
            try:
                result = call()
            except Exception as error:
                if not is_away(error):
                    raise
                deadline = deadline or time.monotonic() + self.patience
                self._note_away(error)
                if self._stopped or time.monotonic() >= deadline:
                    raise self._given_up(error) from error
                self._wait(min(delay * random.uniform(0.5, 1.0), deadline - time.monotonic()))
                delay = min(2 * delay, LONGEST_DELAY_SECONDS)
            else:
                self._note_answer()
                return result

    def _wait(self, seconds: float) -> None:
        # Not an Event: setting one in a signal handler can hang if the same thread is just about to wait for it.
        end = time.monotonic() + seconds
        while not self._stopped and (left := end - time.monotonic()) > 0:
            time.sleep(min(LOOK_SECONDS, left))

    def _note_away(self, error: Exception) -> None:
        with self._lock:
            if self._away_since is not None or self._stopped:
                return
            self._away_since = time.monotonic()
        log.warning("the store does not answer (%s); trying again for up to %s", error, duration(self.patience))

    def _note_answer(self) -> None:
        if self._away_since is None:  # nearly always, so without the lock
            return
        with self._lock:
            since, self._away_since = self._away_since, None
        if since is not None:
            log.warning("the store answers again after %s", duration(time.monotonic() - since))

    def _given_up(self, error: Exception) -> StoreAwayError:
        if self._stopped:
            return StoreAwayError(
                f"the store must answer, but it is away, and waiting for it was called off: {error}"
            )
        return StoreAwayError(
            f"the store must answer, but it did not for {duration(self.patience)}: {error}; run again when it "
            f"does, or wait longer with execution.store_patience_minutes: what is finished is kept"
        )
