"""Expiring leases: at most one process works on an artifact, as long as clocks and disks behave.

A lease saves double work; no result depends on it, because attempts never share file names and the manifest
comes last. Whoever loses a lease stops at once.
"""

import hashlib
import logging
import math
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from storage.artifacts.records import LeaseRecord, decode_record, encode_record
from storage.backends.base import StoreBackend
from storage.errors import CorruptRecordError, Fault, LeaseLostError

log = logging.getLogger(__name__)

LEASE_SECONDS = 60.0
"""A holder that has not renewed for this long has lost the lease."""

CLOCK_SKEW_SECONDS = 60.0
"""How far the clocks of two machines may lie apart before an expiry time is believed."""

SETTLE_SECONDS = 0.2
"""How long a takeover waits before it looks who won, on stores that do not know exclusive creation."""

TAKEOVER = ".takeover"
"""Ending of the file that is created exclusively by the one process that replaces an abandoned lease."""


class Lease:
    """One holder's claim to one path; renewed by a background thread until released."""

    def __init__(
        self,
        backend: StoreBackend,
        path: str,
        run_id: str,
        on_lost: Callable[[], None],
        seconds: float = LEASE_SECONDS,
    ) -> None:
        self.backend = backend
        self.path = path
        self.seconds = seconds
        self.lost = False
        self._on_lost = on_lost
        self._released = threading.Event()
        self._watched: tuple[str, int, float] | None = None
        self._heartbeat: threading.Thread | None = None
        self._record = LeaseRecord(
            holder=uuid.uuid4().hex,  # never a thread or process number: forked processes share those
            run_id=run_id,
            host=host_identity(),
            process_id=os.getpid(),
            process_start=process_start(os.getpid()),
            renewals=0,
            expires=0.0,
        )

    def try_acquire(self) -> LeaseRecord | None:
        """Take the lease and start renewing it; return the present holder's record if that must be waited for."""
        present = self._read()
        if present is None:
            won = self.backend.create(self.path, self._renewed())
        elif self._is_abandoned(present):
            won = self._take_over(present)
        else:
            return present
        present = self._read()
        if not won or present is None or present.holder != self._record.holder:
            return present or self._record
        self._heartbeat = threading.Thread(target=self._renew_until_released, name="lease", daemon=True)
        self._heartbeat.start()
        return None

    def check(self) -> None:
        """Raise LeaseLostError if another process took over."""
        if self.lost:
            raise LeaseLostError(
                f"the lease {self.path} must be held to go on, but it was lost to another run; "
                f"this run stops and takes the other's result when it is started again"
            )

    def release(self) -> None:
        """Stop renewing and remove the lease, unless another process has taken it."""
        self._released.set()
        if self._heartbeat is not None:
            self._heartbeat.join()
        try:
            present = self._read()
            if present is not None and present.holder == self._record.holder:
                self.backend.delete(self.path)
        except (OSError, Fault) as error:  # the work itself is done; whoever waits sees the lease expire
            log.warning("could not remove the lease %s: %s", self.path, error)

    def _read(self) -> LeaseRecord | None:
        try:
            data = self.backend.read(self.path)
        except FileNotFoundError:
            return None
        try:
            return decode_record(LeaseRecord, data, f"{self.backend.url}/{self.path}")
        except CorruptRecordError as error:
            # Of a newer release, or damaged: somebody's, until it is seen to stand still.
            log.warning("waiting for a lease that cannot be read: %s", error)
            unknown = {"run_id": "unknown", "host": "", "renewals": 0, "expires": math.inf}
            return self._record.model_copy(update={**unknown, "holder": hashlib.sha256(data).hexdigest()})

    def _take_over(self, abandoned: LeaseRecord) -> bool:
        """Replace an abandoned lease. Of all who try, one gets past the exclusive creation of the claim."""
        claim = self.path + TAKEOVER
        if not self.backend.create(claim, self._renewed()):
            self._remove_dead_claim(claim)
            return False
        try:
            present = self._read()
            if present is None or (present.holder, present.renewals) != (abandoned.holder, abandoned.renewals):
                return False  # another process was faster, and has already removed its claim
            log.info("taking over the lease %s of run %s, which no longer renews it", self.path, abandoned.run_id)
            self.backend.write(self.path, self._renewed())
            time.sleep(SETTLE_SECONDS)
        finally:
            self.backend.delete(claim)
        return True

    def _remove_dead_claim(self, claim: str) -> None:
        try:
            holder = decode_record(LeaseRecord, self.backend.read(claim), claim)
        except FileNotFoundError:
            return
        except CorruptRecordError as error:
            log.warning("removing a damaged claim: %s", error)
            self.backend.delete(claim)
            return
        if holder_is_gone(holder):
            self.backend.delete(claim)

    def _renewed(self) -> bytes:
        self._record = self._record.model_copy(
            update={"renewals": self._record.renewals + 1, "expires": time.time() + self.seconds}
        )
        return encode_record(self._record)

    def _is_abandoned(self, present: LeaseRecord) -> bool:
        if holder_is_gone(present):
            return True
        # Clocks of other machines cannot be trusted, and a process that lives may have failed to release its
        # lease. Our own monotonic clock can be trusted: has the counter moved?
        state = (present.holder, present.renewals)
        if self._watched is None or self._watched[:2] != state:
            self._watched = (*state, time.monotonic())
        return time.monotonic() - self._watched[2] > self.seconds

    def _renew_until_released(self) -> None:
        last_success = time.monotonic()
        while not self._released.wait(self.seconds / 4):
            try:
                present = self._read()
                if present is None:  # somebody tidied up
                    self.backend.create(self.path, self._renewed())
                elif present.holder == self._record.holder:
                    self.backend.write(self.path, self._renewed())
                else:
                    return self._lose("another process holds it")
                last_success = time.monotonic()
            except Exception as error:  # noqa: BLE001 - the store may be away for a moment
                log.warning("could not renew the lease %s: %s", self.path, error)
                if time.monotonic() - last_success > self.seconds:
                    return self._lose(f"it could not be renewed for {self.seconds:.0f} s")

    def _lose(self, reason: str) -> None:
        if not self._released.is_set():
            log.error("lost the lease %s: %s", self.path, reason)
            self.lost = True
            self._on_lost()


def holder_is_gone(record: LeaseRecord) -> bool:
    """Tell what one look at a lease tells: its holder has ended, or should long have renewed it."""
    if record.host == host_identity() and record.process_start:
        return process_start(record.process_id) != record.process_start
    return time.time() > record.expires + CLOCK_SKEW_SECONDS


def host_identity() -> str:
    """Name this machine, boot and process namespace: inside one, process numbers can be compared."""
    parts = [socket.gethostname()]
    try:
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    except OSError:  # not Linux: process starts are unknown there too, so only expiry counts
        pass
    return " ".join(parts)


def process_start(process_id: int) -> str:
    """Return when a process started, in kernel ticks; empty if it is gone or cannot be asked."""
    try:
        status = Path(f"/proc/{process_id}/stat").read_text()
    except OSError:
        return ""
    fields = status.rpartition(")")[2].split()  # the name before ')' may itself hold spaces
    return "" if fields[0] == "Z" else fields[19]
