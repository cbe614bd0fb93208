import errno
import logging
import os
import pickle
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.artifacts.store import Store
from storage.backends import patient
from storage.backends.base import StoreBackend
from storage.backends.local import LocalBackend
from storage.backends.patient import PatientBackend
from storage.errors import Fault, InputError, StoreAwayError

CALLS: dict[str, Callable[[StoreBackend, Path], object]] = {
    "probe": lambda files, local: files.probe(),
    "read": lambda files, local: files.read("a/b"),
    "write": lambda files, local: files.write("a/b", b"x"),
    "create": lambda files, local: files.create("a/c", b"x"),
    "put": lambda files, local: files.put(local, "a/d"),
    "fetch": lambda files, local: files.fetch("a/b", local.with_suffix(".copy")),
    "size": lambda files, local: files.size("a/b"),
    "digest": lambda files, local: files.digest("a/b"),
    "list": lambda files, local: list(files.list("a")),
    "delete": lambda files, local: files.delete("a/b"),
    "unfinished": lambda files, local: list(files.unfinished()),
    "abandon": lambda files, local: files.abandon("scratch/writes/x"),
}


class Failing(LocalBackend):
    """A folder whose calls fail, before or after they have done their work, as often as is wished."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.failures = 0
        self.calls = 0
        self.error: Exception = StoreAwayError("no answer")
        self.after = False

    def __getattribute__(self, name: str) -> object:
        found = super().__getattribute__(name)
        if name not in CALLS:
            return found

        def call(*arguments: object) -> object:
            self.calls += 1
            fails, self.failures = self.failures > 0, self.failures - 1
            if fails and not self.after:
                raise self.error
            result = found(*arguments)  # type: ignore[operator]
            if fails:
                raise self.error
            return result

        return call


@pytest.fixture
def failing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Failing:
    """A backend with one file in it, that can be made to fail; pauses take no time."""
    monkeypatch.setattr(patient, "FIRST_DELAY_SECONDS", 0.001)
    files = Failing(tmp_path / "store")
    files.write("a/b", b"content")
    files.calls = 0
    return files


@pytest.fixture
def local(tmp_path: Path) -> Path:
    path = tmp_path / "finished"
    path.write_bytes(b"finished")
    return path


@pytest.mark.parametrize("after", [False, True], ids=["lost-question", "lost-answer"])
@pytest.mark.parametrize("call", CALLS)
def test_call_is_tried_again_until_the_store_answers_and_says_what_the_first_would_have(
    call: str, after: bool, failing: Failing, local: Path, tmp_path: Path
) -> None:
    undisturbed = LocalBackend(tmp_path / "undisturbed")
    undisturbed.write("a/b", b"content")
    copy = local.with_name("same")
    copy.write_bytes(local.read_bytes())
    expected = CALLS[call](undisturbed, copy)
    failing.failures, failing.after = 3, after
    found = CALLS[call](PatientBackend(failing, 60), local)
    if call in ("list", "unfinished"):  # times differ
        assert [one[:2] for one in found] == [one[:2] for one in expected]  # type: ignore[attr-defined]
    else:
        assert found == expected
    names = [path for path, *_ in LocalBackend(failing.root).list("a")]
    assert names == [path for path, *_ in undisturbed.list("a")]
    assert local.exists() == copy.exists()


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.ECONNRESET])
def test_disk_that_is_gone_for_a_moment_is_waited_for(number: int, failing: Failing) -> None:
    failing.failures, failing.error = 3, OSError(number, "gone")
    assert PatientBackend(failing, 60).read("a/b") == b"content"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "full"),
        OSError(errno.EDQUOT, "quota"),
        OSError(errno.EROFS, "read-only"),
        PermissionError(errno.EACCES, "no"),
        FileNotFoundError(errno.ENOENT, "none"),
        InputError("credentials"),
        Fault("damaged"),
        ValueError("a mistake of ours"),
    ],
    ids=lambda error: type(error).__name__ + str(getattr(error, "errno", "")),
)
def test_what_a_while_does_not_heal_ends_at_once(error: Exception, failing: Failing) -> None:
    failing.failures, failing.error = 1000, error
    with pytest.raises(type(error)) as raised:
        PatientBackend(failing, 1e9).read("a/b")
    assert (raised.value, failing.calls) == (error, 1)


def test_patience_ends_with_what_was_waited_for_and_what_to_do(failing: Failing) -> None:
    failing.failures = 1_000_000
    with pytest.raises(StoreAwayError, match=r"did not for 0.1 s: no answer.*store_patience_minutes"):
        PatientBackend(failing, 0.05).read("a/b")
    assert failing.calls > 2


def test_outage_is_said_once_at_its_beginning_and_once_at_its_end(
    failing: Failing, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    files = PatientBackend(failing, 600)
    failing.failures = 5
    threads = [threading.Thread(target=files.read, args=("a/b",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [record.message.split(" (")[0] for record in caplog.records][:1] == ["the store does not answer"]
    assert "no answer); trying again for up to 10 min" in caplog.text
    assert caplog.records[-1].message.startswith("the store answers again after")
    assert not files.away


def test_create_of_another_is_not_taken_for_ones_own(failing: Failing) -> None:
    failing.failures = 2
    assert not PatientBackend(failing, 60).create("a/b", b"mine")
    assert failing.read("a/b") == b"content"


def test_waiting_ends_with_stop_waiting_and_nothing_waits_afterwards(failing: Failing) -> None:
    failing.failures = 1_000_000
    files = PatientBackend(failing, 1e9)
    ended = threading.Event()

    def read() -> None:
        with pytest.raises(StoreAwayError, match="called off"):
            files.read("a/b")
        ended.set()

    threading.Thread(target=read).start()
    files.stop_waiting()
    assert ended.wait(60)
    with pytest.raises(StoreAwayError, match="called off"):
        files.write("a/b", b"x")
    failing.failures = 0
    assert files.read("a/b") == b"content"  # one that answers is still used


def test_signal_ends_a_wait(failing: Failing) -> None:
    class Stop(BaseException):
        pass

    def raise_stop(*_: object) -> None:
        raise Stop

    failing.failures = 1_000_000
    previous = signal.signal(signal.SIGUSR1, raise_stop)
    try:
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        with pytest.raises(Stop):
            PatientBackend(failing, 1e9).read("a/b")
    finally:
        signal.signal(signal.SIGUSR1, previous)


# ---- a folder that is taken away ---------------------------------------------------------------------------


@pytest.fixture
def known(tmp_path: Path) -> LocalBackend:
    """A folder that a run has used, with one file in it."""
    files = LocalBackend(tmp_path / "disk" / "store")
    files.probe()
    files.write("a/b", b"content")
    files.must_exist = True
    return files


@pytest.mark.parametrize("gone", ["moved", "unmounted"])
@pytest.mark.parametrize("call", [name for name in CALLS if name != "abandon"])
def test_folder_that_was_taken_away_is_away_and_not_made_again(
    call: str, gone: str, known: LocalBackend, local: Path, tmp_path: Path
) -> None:
    away = known.root if gone == "moved" else known.root.parent
    away.rename(tmp_path / "elsewhere")
    if gone == "unmounted":
        away.mkdir()  # the place of the mount
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(StoreAwayError, match="must stay where it is"):
        CALLS[call](known, local)
    assert sorted(tmp_path.rglob("*")) == before


def test_folder_that_comes_back_is_waited_for(known: LocalBackend, tmp_path: Path) -> None:
    store = pickle.loads(pickle.dumps(Store(known.url).patient(60.0)))  # as a worker gets it
    elsewhere = tmp_path / "elsewhere"
    known.root.rename(elsewhere)
    threading.Timer(0.5, elsewhere.rename, (known.root,)).start()
    store.backend.write("a/c", b"new")
    assert store.backend.read("a/b") == b"content"
    assert not elsewhere.exists()


def test_file_that_is_missing_in_a_folder_that_is_there_is_no_outage(known: LocalBackend) -> None:
    with pytest.raises(FileNotFoundError):
        PatientBackend(known, 1e9).read("a/none")
    known.delete("a/none")


def test_store_is_looked_at_before_it_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="Not a directory"):
        Store(str(tmp_path / "file" / "store")).patient(1e9)
    assert Store(str(tmp_path / "new")).patient(5.0).patience == 5.0
