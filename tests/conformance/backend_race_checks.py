"""What every store backend promises (storage/backends/base.py) to many at once, and after a kill."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

from storage.backends.base import StoreBackend
from tests.conformance.backend_checks import Place

READS = 40


def created_file_is_whole_while_it_appears_and_after_a_kill(place: Place) -> None:
    backend = place.backend()

    def work() -> int:
        own = place.backend()
        for turn in range(READS):
            own.create(f"a/{turn}", bytes(100_000))
        return 0

    child = _fork(work)
    try:
        for turn in range(READS // 2):
            _assert_whole(_read_when_there(backend, f"a/{turn}"))
    finally:
        _kill(child)
    for path, *_ in backend.list("a"):
        _assert_whole(backend.read(path))


def create_has_a_winner_among_threads(place: Place) -> None:
    backend = place.backend()
    for turn in range(5):
        together = threading.Barrier(6)
        winners: list[bytes] = []

        def race(name: bytes, path: str = f"a/{turn}", together: threading.Barrier = together) -> None:
            together.wait()
            if backend.create(path, name):
                winners.append(name)  # noqa: B023 - joined before the next turn

        _in_threads(lambda index: race(b"%d" % index), 6)
        _assert_winner(backend, f"a/{turn}", winners)


def create_has_a_winner_among_processes(place: Place) -> None:
    backend = place.backend()
    for turn in range(3):
        start, starter = os.pipe()

        def race(name: bytes, path: str = f"a/{turn}", start: int = start, starter: int = starter) -> int:
            own = place.backend()
            os.close(starter)
            os.read(start, 1)  # until all ends are closed
            return int(own.create(path, name))

        names = [b"%d" % index for index in range(4)]
        children = [_fork(lambda name=name: race(name)) for name in names]  # type: ignore[misc]
        os.close(starter)
        os.close(start)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        assert set(codes) <= {0, 1}
        _assert_winner(backend, f"a/{turn}", [name for name, code in zip(names, codes, strict=True) if code])


def file_is_whole_while_it_is_replaced_and_after_a_kill(place: Place) -> None:
    backend = place.backend()
    for path in ("a/written", "a/put"):
        backend.write(path, b"\0" * 100_000)
    with _writer(place):
        for turn in range(READS):
            _assert_whole(backend.read("a/put" if turn % 2 else "a/written"))
    for path in ("a/written", "a/put"):
        _assert_whole(backend.read(path))
    assert {path for path, *_ in backend.list("a")} == {"a/written", "a/put"}


def unfinished_writes_can_be_abandoned(place: Place) -> None:
    backend = place.backend()
    backend.write("a/written", b"x")
    backend.create("b", b"x")
    backend.create("b", b"y")
    backend.put(place.file(b"x"), "c")
    assert list(backend.unfinished()) == []
    for _ in range(3):
        with _writer(place):
            while backend.read("a/written") == b"x":  # until it is at work
                pass
            for _ in range(100):
                if list(backend.unfinished()):
                    break
        left = list(backend.unfinished())
        assert all(size >= 0 and abs(started - time.time()) < 120 for _, size, started in left)
        for name, *_ in left + left:
            backend.abandon(name)
        assert list(backend.unfinished()) == []
        assert {path for path, *_ in backend.list("a")} <= {"a/written", "a/put"}
        backend.write("a/written", b"x")


def threads_do_not_disturb_each_other(place: Place) -> None:
    backend = place.backend()

    def work(index: int) -> None:
        for turn in range(5):
            data = b"%d %d" % (index, turn)
            backend.write(f"a/{index}", data)
            assert backend.read(f"a/{index}") == data

    _in_threads(work, 6)
    assert len(list(backend.list("a"))) == 6


def child_of_a_fork_goes_on_with_it(place: Place) -> None:
    backend = place.backend()
    backend.write("a/parent", b"from the parent")

    def work() -> int:
        backend.write("a/child", backend.read("a/parent") + b" and the child")
        return 0

    assert os.waitstatus_to_exitcode(os.waitpid(_fork(work), 0)[1]) == 0
    assert backend.read("a/child") == b"from the parent and the child"


RACE_CHECKS: dict[str, Callable[[Place], None]] = {
    check.__name__: check
    for check in (
        created_file_is_whole_while_it_appears_and_after_a_kill,
        create_has_a_winner_among_threads,
        create_has_a_winner_among_processes,
        file_is_whole_while_it_is_replaced_and_after_a_kill,
        unfinished_writes_can_be_abandoned,
        threads_do_not_disturb_each_other,
        child_of_a_fork_goes_on_with_it,
    )
}


def _assert_winner(backend: StoreBackend, path: str, winners: list[bytes]) -> None:
    assert backend.read(path) in winners
    assert len(winners) == 1 or not backend.exact_create


def _assert_whole(data: bytes) -> None:
    assert len(data) == 100_000
    assert len(set(data)) == 1, "old and new content are mixed"


def _read_when_there(backend: StoreBackend, path: str) -> bytes:
    deadline = time.monotonic() + 60
    while True:
        try:
            return backend.read(path)
        except FileNotFoundError:
            assert time.monotonic() < deadline, f"{path} was created and never seen"


def _in_threads(work: Callable[[int], None], number: int) -> None:
    failures: list[BaseException] = []

    def run(index: int) -> None:
        try:
            work(index)
        except BaseException as error:  # noqa: BLE001 - raised again below
            failures.append(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def _fork(work: Callable[[], int]) -> int:
    """Run `work` in a child, whose exit code is its result, or 99."""
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        code = work()
    except BaseException as error:  # noqa: BLE001 - the exit code tells
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
    finally:
        sys.stderr.flush()
        os._exit(code)


@contextlib.contextmanager
def _writer(place: Place) -> Iterator[None]:
    """Let a child replace `a/written` and `a/put` by other bytes without end, and kill it in the middle."""

    def work() -> int:
        backend = place.backend()
        for turn in range(1_000_000):
            data = bytes([turn % 256]) * 100_000
            backend.write("a/written", data)
            local = place.folder / "new"
            local.write_bytes(data)
            backend.put(local, "a/put")
        return 0

    child = _fork(work)
    try:
        yield
    finally:
        _kill(child)


def _kill(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
