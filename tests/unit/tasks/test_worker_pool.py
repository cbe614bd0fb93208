"""Workers that die in every way: their items are done all the same, or one error says why not; nothing hangs.

A pool that waits for an answer that cannot come fails these tests by their time limit.
"""

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import multiprocess
import pytest
from multiprocess.connection import Connection

import tasks
from storage.errors import Fault, InputError, LeaseLostError, LostWorkersError
from tasks.executors import worker_deaths, worker_pool
from tasks.executors.worker_pool import run_in_workers

pytestmark = pytest.mark.timeout(60)

FATAL = 3
"""The item whose workers die."""


@pytest.fixture(autouse=True)
def _no_worker_is_left() -> Iterator[None]:
    yield
    assert not multiprocess.active_children()


def send_self(number: int) -> None:
    os.kill(os.getpid(), number)
    threading.Event().wait()


def die_while_sending() -> None:
    send = Connection._send

    def half(self: Connection, data: bytes, *arguments: Any) -> None:
        send(self, bytes(data)[: len(data) // 2], *arguments)
        send_self(signal.SIGKILL)

    Connection._send = half


def exit_with_thread() -> None:
    """The interpreter waits for the thread, so the process does not end."""
    threading.Thread(target=threading.Event().wait).start()
    sys.exit()


def die_with_heir() -> None:
    """A process that holds the worker's pipe lives on, a moment at least."""
    if not os.fork():
        os.close(0)
        signal.alarm(5)
        signal.pause()
    send_self(signal.SIGKILL)


WAYS: dict[str, Callable[[], object]] = {
    "SIGKILL": partial(send_self, signal.SIGKILL),
    "SIGSEGV": partial(send_self, signal.SIGSEGV),
    "SIGTERM": partial(send_self, signal.SIGTERM),
    "real-time-signal": partial(send_self, signal.SIGRTMIN + 1),
    "os._exit(0)": partial(os._exit, 0),
    "os._exit(3)": partial(os._exit, 3),
    "sys.exit(0)": partial(sys.exit, 0),
    "sys.exit(text)": partial(sys.exit, "enough"),
    "sys.exit-with-a-thread": exit_with_thread,
    "while-sending": die_while_sending,
    "with-an-heir": die_with_heir,
}
ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


@dataclass(frozen=True)
class Double:
    """Doubles numbers. The first `times` processes that are given FATAL die of it."""

    folder: Path
    way: Callable[[], object]
    times: int

    def __call__(self, number: int) -> int:
        if number == FATAL and len(list(self.folder.iterdir())) < self.times:
            (self.folder / str(os.getpid())).touch()
            self.way()
        return 2 * number


@pytest.fixture
def short_wait(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Do not wait long for processes that do not end; a busy machine needs longer to be rid of a killed one."""
    monkeypatch.setattr(worker_pool, "END_SECONDS", 1.0)
    yield
    for worker in multiprocess.active_children():
        worker.join(10)


@ways
@pytest.mark.usefixtures("short_wait")
def test_item_whose_worker_dies_once_is_done_by_another(tmp_path: Path, way: Callable[[], object]) -> None:
    assert run_in_workers(Double(tmp_path, way, times=1), range(6), 2) == [0, 2, 4, 6, 8, 10]
    assert len(list(tmp_path.iterdir())) == 1


@ways
@pytest.mark.usefixtures("short_wait")
def test_item_that_costs_two_workers_ends_the_work_with_an_error(
    tmp_path: Path, way: Callable[[], object]
) -> None:
    with pytest.raises(LostWorkersError, match="shard 3 cost 2") as caught:
        run_in_workers(Double(tmp_path, way, times=9), range(6), 2, name="shard {}".format)
    lost = [path.name for path in tmp_path.iterdir()]
    assert len(lost) == 2
    assert all(f"process {process_id} " in str(caught.value) for process_id in lost)


def test_work_goes_on_when_the_fork_server_is_killed(tmp_path: Path) -> None:
    def kill_fork_server() -> None:
        assert "forkserver" in Path(f"/proc/{os.getppid()}/cmdline").read_text()
        os.kill(os.getppid(), signal.SIGKILL)
        threading.Event().wait()

    assert run_in_workers(Double(tmp_path, kill_fork_server, times=1), range(6), 2) == [0, 2, 4, 6, 8, 10]


class KillsItsMaker:
    """An answer that kills the worker that gave it when it has arrived: before the worker is given more."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple[Any, ...]:
        return kill, (os.getpid(), self.number)


def kill(process_id: int, number: int) -> int:
    (worker,) = [child for child in multiprocess.active_children() if child.pid == process_id]
    os.kill(process_id, signal.SIGKILL)
    worker.join()
    return number


def test_worker_that_is_killed_between_two_items_is_replaced() -> None:
    assert run_in_workers(KillsItsMaker, range(5), 2) == [0, 1, 2, 3, 4]


def serve_or_die(folder: Path, times: int, *arguments: Any) -> None:
    if len(list(folder.iterdir())) < times:
        (folder / str(os.getpid())).touch()
        send_self(signal.SIGKILL)
    worker_pool._serve(*arguments)


@pytest.mark.parametrize("times", [1, 99])
def test_worker_that_is_killed_while_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    monkeypatch.setattr(worker_pool, "_serve", partial(serve_or_die, tmp_path, times))
    if times == 1:
        assert run_in_workers(abs, [-1, -2, -3], 2) == [1, 2, 3]
    else:
        with pytest.raises(LostWorkersError, match=r"cost 2: .*SIGKILL.*SIGKILL"):
            run_in_workers(abs, [-1, -2, -3], 2)


@pytest.mark.parametrize("error", [BrokenPipeError("no fork server"), EOFError()], ids=["refused", "killed"])
def test_no_process_to_be_had_is_an_error(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def start(self: Any) -> None:
        raise error

    monkeypatch.setattr(multiprocess.get_context("forkserver").Process, "start", start)
    monkeypatch.setattr(worker_pool, "START_PAUSES", (0.0, 0.0))
    with pytest.raises(Fault, match=f"3 tries in a row failed.*{type(error).__name__}"):
        run_in_workers(abs, [-1], 2)


@pytest.mark.parametrize(
    ("kills", "says"), [([7, 8, 9], "ran out of memory"), ([7, 7, 7], "if nobody killed them by hand")]
)
def test_error_says_what_to_do_where_memory_ran_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kills: list[int], says: str
) -> None:
    counts = iter(kills)
    monkeypatch.setattr(worker_deaths, "out_of_memory_kills", lambda: next(counts))
    with pytest.raises(Fault, match=rf"{says}.* execution\.workers=N. \(now 2\)"):
        run_in_workers(Double(tmp_path, WAYS["SIGKILL"], times=2), [FATAL], 2)


class Unpicklable(InputError):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()
        self.frame = sys._getframe()


class CannotBeMadeAgain(InputError):
    def __init__(self, number: int, reason: str) -> None:
        super().__init__(f"{number}: {reason}")


ERRORS: dict[str, tuple[Callable[[], Exception], type[Exception], str]] = {
    "input": (lambda: InputError("bad data"), InputError, "^bad data$"),
    "fault": (lambda: Fault("no luck"), Fault, "^no luck$"),
    "full-disk": (lambda: OSError(errno.ENOSPC, "full", "file"), OSError, "full: 'file'$"),
    "end-of-file": (lambda: EOFError("short"), EOFError, "^short$"),  # also what a dead worker's pipe says
    "memory": (lambda: MemoryError("much"), MemoryError, "^much$"),
    "unpicklable": (lambda: Unpicklable("the text of it"), RuntimeError, "Unpicklable: the text of it$"),
    "one-way": (lambda: CannotBeMadeAgain(3, "the text"), RuntimeError, "CannotBeMadeAgain: 3: the text$"),
}


@pytest.mark.parametrize(("make", "kind", "text"), ERRORS.values(), ids=ERRORS)
def test_error_of_the_work_is_raised_as_it_is_and_ends_all_other_work(
    make: Callable[[], Exception], kind: type[Exception], text: str
) -> None:
    def work(item: str) -> None:
        if item == "bad":
            raise make()
        threading.Event().wait()

    with pytest.raises(kind, match=text) as caught:
        run_in_workers(work, ["endless", "bad", "never begun"], 2)
    assert type(caught.value) is kind
    assert "in work" in str(caught.value.__cause__)  # the worker's traceback


@pytest.mark.parametrize("item", [0, 1])
def test_what_cannot_be_pickled_is_an_error(item: int) -> None:
    items: list[Any] = ["first", "second"]
    items[item] = sys._getframe()
    with pytest.raises(TypeError, match="pickle"):
        run_in_workers(str, items, 1)
    with pytest.raises(TypeError, match="pickle"):
        run_in_workers(lambda item: sys._getframe(), ["result"], 1)


def test_items_and_results_may_be_huge() -> None:
    items = [bytes([number]) * 30_000_000 for number in range(3)]
    assert run_in_workers(bytes.swapcase, items, 2, name=len) == items


def test_function_that_keeps_state_is_a_fresh_copy_for_every_item() -> None:
    seen: list[int] = []

    def work(item: int) -> int:
        seen.append(item)
        return len(seen)

    assert run_in_workers(work, range(4), 2) == [1, 1, 1, 1]


@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGINT])
def test_interruption_of_the_caller_ends_the_workers(number: signal.Signals) -> None:
    def lose(*_: object) -> None:
        raise LeaseLostError("lost")

    def work(parent: int) -> None:
        os.kill(parent, number)
        threading.Event().wait()

    before = signal.signal(number, lose)
    try:
        with pytest.raises(LeaseLostError):
            run_in_workers(work, [os.getpid()] * 2, 2)
    finally:
        signal.signal(number, before)


PARENT = """
import os, signal, sys, threading

from tasks.executors.worker_pool import run_in_workers

def work(item):
    os.write(1, b"at work\\n")
    threading.Event().wait()

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job inherits it ignored
    run_in_workers(work, range(3), 2)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_parent_that_is_killed_leaves_no_worker(tmp_path: Path, number: signal.Signals) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    with subprocess.Popen(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(Path(tasks.__file__).parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as parent:
        assert parent.stdout is not None
        try:
            assert [parent.stdout.readline() for _ in range(2)] == [b"at work\n"] * 2
            parent.send_signal(number)
            # Workers and fork server have inherited the pipe: it ends when the last of them has.
            assert parent.communicate(timeout=30) == (b"", None)
            assert parent.returncode == -number
        except BaseException:
            os.killpg(parent.pid, signal.SIGKILL)
            raise
