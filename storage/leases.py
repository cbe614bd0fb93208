"""Expiring leases: at most one process works on an artifact, as long as clocks and disks behave.

A lease saves double work; no result depends on it, because attempts never share file names and the manifest
comes last. Whoever loses a lease stops at once.
"""

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from storage.errors import DamagedRecord, LeaseLost
from storage.files import Files
from storage.records import LeaseRecord, decode_record, encode_record

log = logging.getLogger(__name__)

LEASE_SECONDS = 60.0
"""A holder that has not renewed for this long has lost the lease."""

CLOCK_SKEW_SECONDS = 60.0
"""How far the clocks of two machines may lie apart before an expiry time is believed."""


class Lease:
    """One holder's claim to one path; renewed by a background thread until released."""

    def __init__(
        self,
        files: Files,
        path: str,
        run_id: str,
        on_lost: Callable[[], None],
        seconds: float = LEASE_SECONDS,
    ) -> None:
        self.files = files
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
            process_start=_process_start(os.getpid()),
            renewals=0,
            expires=0.0,
        )

    def try_acquire(self) -> LeaseRecord | None:
        """Take the lease and start renewing it; return the present holder's record if that must be waited for."""
        present = self._read()
        if present is None:
            won = self.files.create(self.path, self._renewed())
        elif self._is_abandoned(present):
            log.info("taking over the lease %s of run %s, which no longer renews it", self.path, present.run_id)
            self.files.write(self.path, self._renewed())
            time.sleep(0.2)  # two waiters may have seen the same abandoned lease: the last writer has it
            won = True
        else:
            return present
        present = self._read()
        if not won or present is None or present.holder != self._record.holder:
            return present or self._record
        self._heartbeat = threading.Thread(target=self._renew_until_released, name="lease", daemon=True)
        self._heartbeat.start()
        return None

    def check(self) -> None:
        """Raise LeaseLost if another process took over."""
        if self.lost:
            raise LeaseLost(
                f"the lease {self.path} must be held to go on, but it was lost to another run; "
                f"this run stops and takes the other's result when it is started again"
            )

    def release(self) -> None:
        """Stop renewing and remove the lease, unless another process has taken it."""
        self._released.set()
        if self._heartbeat is not None:
            self._heartbeat.join()
        present = self._read()
        if present is not None and present.holder == self._record.holder:
            self.files.delete(self.path)

    def _read(self) -> LeaseRecord | None:
        try:
            return decode_record(LeaseRecord, self.files.read(self.path), f"{self.files.url}/{self.path}")
        except FileNotFoundError:
            return None
        except DamagedRecord as error:  # nobody can renew it, so it is nobody's
            log.warning("removing a damaged lease: %s", error)
            self.files.delete(self.path)
            return None

    def _renewed(self) -> bytes:
        self._record = self._record.model_copy(
            update={"renewals": self._record.renewals + 1, "expires": time.time() + self.seconds}
        )
        return encode_record(self._record)

    def _is_abandoned(self, present: LeaseRecord) -> bool:
        if present.host == host_identity() and present.process_start:
            return _process_start(present.process_id) != present.process_start
        if time.time() > present.expires + CLOCK_SKEW_SECONDS:
            return True
        # Clocks of other machines cannot be trusted, our own monotonic one can: has the counter moved?
        state = (present.holder, present.renewals)
        if self._watched is None or self._watched[:2] != state:
            self._watched = (*state, time.monotonic())
        return time.monotonic() - self._watched[2] > self.seconds

    def _renew_until_released(self) -> None:
        last_success = time.monotonic()
        while not self._released.wait(self.seconds / 4):
            try:
                present = self._read()
                if present is None or present.holder != self._record.holder:
                    return self._lose("another process holds it")
                self.files.write(self.path, self._renewed())
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


def host_identity() -> str:
    """Name this machine, boot and process namespace: inside one, process numbers can be compared."""
    parts = [socket.gethostname()]
    try:
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    except OSError:  # not Linux: process starts are unknown there too, so only expiry counts
        pass
    return " ".join(parts)


def _process_start(process_id: int) -> str:
    """Return when a process started, in kernel ticks; empty if it is gone or cannot be asked."""
    try:
        status = Path(f"/proc/{process_id}/stat").read_text()
    except OSError:
        return ""
    fields = status.rpartition(")")[2].split()  # the name before ')' may itself hold spaces
    return "" if fields[0] == "Z" else fields[19]
