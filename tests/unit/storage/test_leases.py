import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from storage.artifacts import lease as leases
from storage.artifacts.lease import TAKEOVER, Lease, holder_is_gone, host_identity
from storage.artifacts.records import LeaseRecord, decode_record, encode_record
from storage.backends.base import StoreBackend
from storage.backends.registry import open_backend
from storage.errors import Fault, LeaseLostError

PATH = "leases/train/0123.json"
REPOSITORY = Path(__file__).parents[3]
PATIENCE = 60.0
"""Seconds after which a test fails that waits for an event of another thread or process."""


@pytest.fixture
def files(store_url: str) -> StoreBackend:
    return open_backend(store_url)


@pytest.fixture
def local_files(tmp_path: Path) -> StoreBackend:
    return open_backend(str(tmp_path / "store"))


@pytest.fixture
def lease() -> Iterator[Callable[..., Lease]]:
    """A function that makes a lease; all are released at the end of the test."""
    made: list[Lease] = []

    def make(
        files: StoreBackend, run_id: str = "run", seconds: float = 60.0, on_lost: Callable[[], None] = int
    ) -> Lease:
        made.append(Lease(files, PATH, run_id, on_lost, seconds))
        return made[-1]

    yield make
    for each in made:
        each.release()


def present(files: StoreBackend) -> LeaseRecord:
    return decode_record(LeaseRecord, files.read(PATH), PATH)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def held_elsewhere(files: StoreBackend, **fields: object) -> LeaseRecord:
    """Put down the lease of a process of another machine."""
    record = LeaseRecord(
        **{
            "holder": "other", "run_id": "other-run", "host": "elsewhere", "process_id": 1, "process_start": "1",
            "renewals": 1, "expires": 0.0, **fields,
        }
    )  # fmt: skip
    files.write(PATH, encode_record(record))
    return record


class Clock:
    """Stands in for the time module in `storage.artifacts.lease`, so that tests need not wait for hours."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.uptime = 500.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.uptime

    def sleep(self, seconds: float) -> None:
        self.pass_(seconds)

    def pass_(self, seconds: float) -> None:
        self.now += seconds
        self.uptime += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(leases, "time", clock)
    return clock


# ---- one holder ------------------------------------------------------------------------------------------


def test_lease_is_held_by_one_and_free_after_its_release(files: StoreBackend, lease: Callable[..., Lease]) -> None:
    first, second = lease(files, "first"), lease(files, "second")
    assert first.try_acquire() is None
    holder = second.try_acquire()
    assert holder is not None
    assert holder.run_id == "first"
    second.release()
    assert present(files).run_id == "first"
    first.release()
    assert list(files.list("leases")) == []
    assert second.try_acquire() is None
    second.check()


def test_lease_is_renewed_until_it_is_released(files: StoreBackend, lease: Callable[..., Lease]) -> None:
    held = lease(files, seconds=0.4)
    assert held.try_acquire() is None
    before = present(files)
    until(lambda: present(files).renewals >= before.renewals + 3)
    assert present(files).expires > before.expires
    assert present(files).holder == before.holder
    held.check()


RACE = """
import multiprocessing, sys, time
from pathlib import Path
from storage.backends.registry import open_backend
from storage.artifacts.lease import Lease

def contend(root, barrier, results, finish):
    lease = Lease(open_backend(root), "leases/train/0123.json", "run", lambda: None)
    barrier.wait()
    results.put(lease.try_acquire() is None)
    finish.wait()

if __name__ == "__main__":
    method, root, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
    context = multiprocessing.get_context(method)
    barrier, results, finish = context.Barrier(number), context.Queue(), context.Event()
    processes = [context.Process(target=contend, args=(root, barrier, results, finish)) for _ in range(number)]
    for process in processes:
        process.start()
    print(sum(results.get() for _ in processes))
    finish.set()
    for process in processes:
        process.join()
"""

DIES = """
import os, signal, sys
from storage.backends.registry import open_backend
from storage.artifacts.lease import Lease
assert Lease(open_backend(sys.argv[1]), "leases/train/0123.json", "dead", lambda: None).try_acquire() is None
print("held", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def run_python(path: Path, code: str, *arguments: str) -> str:
    path.write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, str(path), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize("abandoned", [False, True], ids=["free", "abandoned"])
@pytest.mark.parametrize(("method", "number"), [("fork", 16), ("spawn", 4)])
def test_lease_that_many_processes_want_at_once_goes_to_one(
    tmp_path: Path, method: str, number: int, abandoned: bool
) -> None:
    root = str(tmp_path / "store")
    if abandoned:
        assert run_python(tmp_path / "dies.py", DIES, root) == "held\n"
    assert run_python(tmp_path / "race.py", RACE, method, root, str(number)) == "1\n"
    assert [path for path, *_ in open_backend(root).list("leases")] == [PATH]


# ---- holders that are gone ---------------------------------------------------------------------------------


def test_lease_of_a_process_of_this_machine_that_died_is_taken_over_at_once(
    tmp_path: Path, lease: Callable[..., Lease]
) -> None:
    files = open_backend(str(tmp_path / "store"))
    assert run_python(tmp_path / "dies.py", DIES, files.url) == "held\n"
    assert holder_is_gone(present(files))
    assert lease(files).try_acquire() is None
    assert present(files).run_id == "run"


def test_lease_of_a_process_number_that_was_used_again_is_taken_over(
    local_files: StoreBackend, lease: Callable[..., Lease]
) -> None:
    held_elsewhere(
        local_files, host=host_identity(), process_id=os.getpid(), process_start="1", expires=time.time() + 999
    )
    assert lease(local_files).try_acquire() is None


def test_lease_of_another_machine_is_taken_over_only_after_it_expired(
    local_files: StoreBackend, lease: Callable[..., Lease], clock: Clock
) -> None:
    expires = clock.now + 1000
    for moment in (clock.now, expires, expires + leases.CLOCK_SKEW_SECONDS):
        clock.now = moment
        held_elsewhere(local_files, expires=expires)
        assert (
            lease(local_files).try_acquire() is not None
        )  # a newcomer each time: nobody has watched it stand still
    clock.now = expires + leases.CLOCK_SKEW_SECONDS + 1
    assert lease(local_files).try_acquire() is None


def test_lease_of_another_machine_whose_clock_is_ahead_is_taken_over_when_it_stands_still(
    local_files: StoreBackend, lease: Callable[..., Lease], clock: Clock
) -> None:
    held_elsewhere(local_files, expires=clock.now + 1e9)
    waiting = lease(local_files, seconds=60.0)
    for _ in range(6):
        assert waiting.try_acquire() is not None
        clock.pass_(10)
    clock.pass_(1)
    assert waiting.try_acquire() is None


def test_lease_that_is_renewed_is_never_taken_over_whatever_the_clocks_say(
    local_files: StoreBackend, lease: Callable[..., Lease], clock: Clock
) -> None:
    waiting = lease(local_files, seconds=60.0)
    for renewals in range(1, 20):
        held_elsewhere(local_files, renewals=renewals, expires=clock.now - leases.CLOCK_SKEW_SECONDS)
        assert waiting.try_acquire() is not None
        clock.pass_(50)
        held_elsewhere(local_files, renewals=renewals + 1, expires=clock.now - leases.CLOCK_SKEW_SECONDS)


def test_lease_that_a_living_process_of_this_machine_failed_to_release_is_taken_over_when_it_stands_still(
    local_files: StoreBackend, lease: Callable[..., Lease], clock: Clock
) -> None:
    # A retry in the same process would otherwise wait for itself, for ever.
    start = leases.process_start(os.getpid())
    held_elsewhere(
        local_files, host=host_identity(), process_id=os.getpid(), process_start=start, expires=clock.now - 1e6
    )
    waiting = lease(local_files, seconds=60.0)
    assert waiting.try_acquire() is not None
    clock.pass_(61)
    assert waiting.try_acquire() is None


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"kind": "lease", "schema_version": 99}'], ids=["empty", "torn", "newer"]
)
def test_lease_that_cannot_be_read_is_taken_over_when_it_stands_still(
    local_files: StoreBackend, lease: Callable[..., Lease], clock: Clock, content: bytes
) -> None:
    local_files.write(PATH, content)
    waiting = lease(local_files, seconds=60.0)
    assert waiting.try_acquire() is not None
    assert local_files.read(PATH) == content  # it may be that of a newer release, at work
    clock.pass_(61)
    assert waiting.try_acquire() is None


def test_lease_whose_takeover_was_cut_off_is_taken_over_by_the_next(
    tmp_path: Path, lease: Callable[..., Lease]
) -> None:
    files = open_backend(str(tmp_path / "store"))
    assert run_python(tmp_path / "dies.py", DIES, files.url) == "held\n"
    files.write(PATH + TAKEOVER, files.read(PATH))  # a second process died in the middle of taking over
    waiting = lease(files)
    assert waiting.try_acquire() is not None
    assert waiting.try_acquire() is None
    assert [path for path, *_ in files.list("leases")] == [PATH]


def test_lease_that_another_process_is_just_taking_over_is_left_to_it(
    tmp_path: Path, lease: Callable[..., Lease]
) -> None:
    files = open_backend(str(tmp_path / "store"))
    assert run_python(tmp_path / "dies.py", DIES, files.url) == "held\n"
    faster = lease(files, "faster")
    assert files.create(PATH + TAKEOVER, faster._renewed())
    for _ in range(3):
        holder = lease(files, "slower").try_acquire()
        assert holder is not None
        assert holder.run_id == "dead"


def test_lease_that_was_taken_over_since_it_was_looked_at_is_left_to_the_new_holder(
    tmp_path: Path, lease: Callable[..., Lease]
) -> None:
    files = open_backend(str(tmp_path / "store"))
    assert run_python(tmp_path / "dies.py", DIES, files.url) == "held\n"
    abandoned = present(files)
    faster, slower = lease(files, "faster"), lease(files, "slower")
    assert faster.try_acquire() is None
    assert not slower._take_over(abandoned)
    assert present(files).run_id == "faster"
    assert [path for path, *_ in files.list("leases")] == [PATH]


# ---- losing it -----------------------------------------------------------------------------------------------


def test_lease_that_is_lost_tells_the_holder_and_is_not_removed(
    files: StoreBackend, lease: Callable[..., Lease]
) -> None:
    lost = threading.Event()
    held = lease(files, seconds=0.4, on_lost=lost.set)
    assert held.try_acquire() is None
    thief = held_elsewhere(files, expires=time.time() + 999)
    assert lost.wait(PATIENCE)
    with pytest.raises(LeaseLostError, match=PATH):
        held.check()
    held.release()
    assert present(files) == thief


def test_lease_whose_file_was_tidied_away_is_put_back(files: StoreBackend, lease: Callable[..., Lease]) -> None:
    held = lease(files, seconds=0.4)
    assert held.try_acquire() is None
    mine = present(files).holder
    files.delete(PATH)
    until(lambda: [path for path, *_ in files.list("leases")] == [PATH])
    assert present(files).holder == mine
    held.check()


class Unreachable:
    """A store that has stopped answering."""

    url = "s3://bucket"

    def __getattr__(self, name: str) -> Callable[..., object]:
        def fail(*arguments: object) -> object:
            raise Fault("the store must answer")

        return fail


def test_lease_on_a_store_that_stops_answering_is_lost_after_its_time(
    local_files: StoreBackend, lease: Callable[..., Lease]
) -> None:
    lost = threading.Event()
    held = lease(local_files, seconds=0.2, on_lost=lost.set)
    assert held.try_acquire() is None
    held.backend = Unreachable()
    assert lost.wait(PATIENCE)
    held.release()  # nothing to be done about it: the work itself must not fail for this
    held.backend = local_files


def test_lease_on_a_store_that_stops_answering_for_a_moment_is_kept(
    local_files: StoreBackend, lease: Callable[..., Lease]
) -> None:
    held = lease(local_files, seconds=2.0)
    assert held.try_acquire() is None
    before = present(local_files).renewals
    failures = itertools.count()
    read = local_files.read

    class Flaky:
        def __getattr__(self, name: str) -> object:
            return getattr(local_files, name)

        def read(self, path: str) -> bytes:
            if next(failures) == 0:
                raise Fault("the store must answer")
            return read(path)

    held.backend = Flaky()
    until(lambda: present(local_files).renewals > before)
    assert next(failures) > 1
    held.check()


def test_lease_record_says_who_holds_it(local_files: StoreBackend, lease: Callable[..., Lease]) -> None:
    assert lease(local_files, "run-7").try_acquire() is None
    body = json.loads(local_files.read(PATH))
    assert (body["run_id"], body["process_id"], body["host"]) == ("run-7", os.getpid(), host_identity())


def test_lease_of_a_living_process_is_not_gone_and_of_another_machine_after_its_time(clock: Clock) -> None:
    mine = {"holder": "a", "run_id": "r", "renewals": 1, "expires": 0.0, "process_id": os.getpid()}
    start = leases.process_start(os.getpid())
    assert not holder_is_gone(LeaseRecord(**mine, host=host_identity(), process_start=start))
    assert holder_is_gone(LeaseRecord(**mine, host=host_identity(), process_start=start + "0"))
    assert holder_is_gone(LeaseRecord(**mine, host="elsewhere", process_start=start))
