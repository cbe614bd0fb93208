"""Expiring leases: at most one process works on an artifact, as long as clocks and disks behave.

A lease saves double work; no result depends on it, because attempts never share file names and the manifest
comes last. Whoever reads that another one holds its lease stops at once, and looks before every commit. A holder
that cannot reach the store goes on: nobody else can take the lease there either, and if somebody could after all,
it is read as soon as the store answers.
"""

import hashlib
import logging
import math
import os
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from storage.artifacts.processes import host_identity, start_of_process
from storage.artifacts.records import LeaseRecord, decode_record, encode_record
from storage.backends.base import StoreBackend
from storage.backends.patient import PatientBackend
from storage.errors import CorruptRecordError, Fault, InputError, LeaseLostError

log = logging.getLogger(__name__)

LEASE_SECONDS = 60.0
"""A holder that has not renewed for this long has lost the lease."""

CLOCK_SKEW_SECONDS = 60.0
"""How far the clocks of two machines may lie apart before an expiry time is believed."""

CUT_OFF_SECONDS = 600.0
"""How long the holder on another machine may be cut off from the store, unable to renew, before one look at its
lease is enough to call it gone. Who sees the store answer meanwhile, and the lease stand still, knows sooner."""

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
        self._watched: tuple[str, int] | None = None
        self._stood_still = self._last_look = 0.0
        self._heartbeat: threading.Thread | None = None
        self._record = LeaseRecord(
            holder=uuid.uuid4().hex,  # never a thread or process number: forked processes share those
            run_id=run_id,
            host=host_identity(),
            process_id=os.getpid(),
            process_start=start_of_process(os.getpid()),
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
        """Raise LeaseLostError if another process took over, as far as the store can be asked."""
        self.claim.check(self.backend)

    @property
    def claim(self) -> "Claim":
        """What the processes that do the work look at before they commit."""
        return Claim(self.path, self._record.holder)

    def release(self) -> None:
        """Stop renewing and remove the lease, unless another process has taken it."""
        self._released.set()
        if self._heartbeat is not None:
            self._heartbeat.join()
        try:
            present = self._read(self._impatient)
            if present is not None and present.holder == self._record.holder:
                self._impatient.delete(self.path)
        except (
            OSError,
            Fault,
            InputError,
        ) as error:  # the work itself is done; whoever waits sees the lease expire
            log.warning("could not remove the lease %s: %s", self.path, error)

    @property
    def _impatient(self) -> StoreBackend:
        """The backend without patience: a heartbeat comes again anyhow, and nobody waits to clean up."""
        return self.backend.inner if isinstance(self.backend, PatientBackend) else self.backend

    def _read(self, backend: StoreBackend | None = None) -> LeaseRecord | None:
        try:
            data = (backend or self.backend).read(self.path)
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
        # lease. Our own monotonic clock can be trusted: has the counter moved? Time in which we did not look, or
        # could not, counts for little: the store may have been away for the holder too.
        state, now = (present.holder, present.renewals), time.monotonic()
        if self._watched != state:
            self._watched, self._stood_still = state, 0.0
        else:
            self._stood_still += min(now - self._last_look, self.seconds / 4)
        self._last_look = now
        return self._stood_still >= self.seconds

    def _renew_until_released(self) -> None:
        renewed = True
        while not self._released.wait(self.seconds / 4):
            try:
                present = self._read(self._impatient)
                if present is None:  # somebody tidied up
                    self._impatient.create(self.path, self._renewed())
                elif present.holder == self._record.holder:
                    self._impatient.write(self.path, self._renewed())
                else:
                    return self._lose("another process holds it")
                renewed = True
            except Exception as error:  # noqa: BLE001 - the store is away: whoever works needs it, or not
                if renewed:
                    log.warning("cannot renew the lease %s for now: %s", self.path, error)
                renewed = False

    def _lose(self, reason: str) -> None:
        if not self._released.is_set():
            log.error("lost the lease %s: %s", self.path, reason)
            self._on_lost()


@dataclass(frozen=True)
class Claim:
    """A held lease, as the processes see it that do the work. Can be pickled and written as JSON."""

    path: str
    holder: str

    def check(self, backend: StoreBackend) -> None:
        """Raise LeaseLostError if the store says that another process holds the lease.

        One that is gone was tidied away, and is about to be put back; one that cannot be read is not ours.
        """
        try:
            holder = decode_record(LeaseRecord, backend.read(self.path), self.path).holder
        except FileNotFoundError:
            return
        except CorruptRecordError:
            holder = "unknown"
        if holder != self.holder:
            raise LeaseLostError(
                f"the lease {self.path} must be held to go on, but it was lost to another run; "
                f"this run stops and takes the other's result when it is started again"
            )


def holder_is_gone(record: LeaseRecord) -> bool:
    """Tell what one look at a lease tells: its holder has ended, or should long have renewed it."""
    if record.host == host_identity() and record.process_start:
        return start_of_process(record.process_id) != record.process_start
    return time.time() > record.expires + CLOCK_SKEW_SECONDS + CUT_OFF_SECONDS
