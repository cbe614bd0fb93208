import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from model.training.committer import Committer
from storage.artifacts.pending import keep_pending, pending_parts
from storage.artifacts.store import Store
from storage.artifacts.writer import ArtifactWriter
from storage.backends import patient
from storage.errors import InputError, StoreAwayError


class Disk:
    """A store in a folder that can be taken away and brought back, with scratch elsewhere."""

    def __init__(self, folder: Path) -> None:
        self.root, self.elsewhere = folder / "store", folder / "elsewhere"
        self.store = Store(str(self.root)).patient(0.3)
        self.writer = ArtifactWriter(self.store, "train", "0" * 16)

    def take_away(self) -> None:
        self.root.rename(self.elsewhere)

    def bring_back(self) -> None:
        self.elsewhere.rename(self.root)

    def save(self, part: str) -> str:
        path = self.writer.scratch() / "weights.bin"
        path.write_bytes(part.encode())
        keep_pending(self.writer, part, {"weights": path})
        return part

    def committed(self) -> list[str]:
        parts = ArtifactWriter(self.store, "train", "0" * 16).parts()
        for name, part in parts.items():
            assert self.writer.open(part.files[0]).read_bytes() == name.encode()
        return sorted(parts)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    monkeypatch.setenv("PILE_SCRATCH", str(tmp_path / "machine"))
    monkeypatch.setattr(patient, "FIRST_DELAY_SECONDS", 0.02)
    return Disk(tmp_path)


@pytest.fixture
def committer(disk: Disk) -> Iterator[Callable[..., Committer]]:
    made: list[Committer] = []

    def make(committed: tuple[str, ...] = (), keep: int = 2) -> Committer:
        made.append(Committer(disk.writer, committed, keep))
        return made[-1]

    yield make
    for one in made:
        one.close()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def test_checkpoints_are_committed_one_after_the_other_and_old_ones_go(
    disk: Disk, committer: Callable[..., Committer]
) -> None:
    commit = committer()
    for number in range(5):
        assert commit.submit(disk.save(f"step-{number}"))
    assert disk.committed() == ["step-3", "step-4"]
    assert pending_parts(disk.writer) == []
    commit.finish()


def test_training_goes_on_while_the_store_is_away_and_the_newest_checkpoint_catches_up(
    disk: Disk, committer: Callable[..., Committer]
) -> None:
    commit = committer()
    assert commit.submit(disk.save("step-0"))
    disk.take_away()
    for number in range(1, 6):  # longer than the patience of the store
        assert not commit.submit(disk.save(f"step-{number}"))
        assert len(pending_parts(disk.writer)) <= 3
        time.sleep(0.15)
    disk.bring_back()
    commit.finish()
    assert "step-5" in disk.committed()
    assert len(disk.committed()) <= 2
    assert pending_parts(disk.writer) == []


def test_end_of_a_training_waits_for_the_store_with_its_patience(
    disk: Disk, committer: Callable[..., Committer]
) -> None:
    commit = committer()
    disk.take_away()
    commit.submit(disk.save("step-1"))
    with pytest.raises(StoreAwayError, match="did not for"):
        commit.finish()
    assert pending_parts(disk.writer) == ["step-1"]
    disk.bring_back()


def test_training_that_is_stopped_waits_for_no_store(disk: Disk, committer: Callable[..., Committer]) -> None:
    disk.store.backend.patience = 1e9
    commit = committer()
    disk.take_away()
    commit.submit(disk.save("step-1"))
    assert not commit.stop()
    assert pending_parts(disk.writer) == ["step-1"]
    disk.bring_back()


def test_training_that_is_stopped_commits_to_a_store_that_answers(
    disk: Disk, committer: Callable[..., Committer]
) -> None:
    commit = committer()
    commit.submit(disk.save("step-1"))
    assert commit.stop()
    assert disk.committed() == ["step-1"]


def test_error_that_no_while_heals_ends_the_training(
    disk: Disk, committer: Callable[..., Committer], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise InputError("may not write")

    monkeypatch.setattr(disk.store.backend, "put", refuse)
    commit = committer()
    with pytest.raises(InputError, match="may not write"):
        commit.submit(disk.save("step-1"))
    with pytest.raises(InputError, match="may not write"):
        commit.check()
    assert pending_parts(disk.writer) == ["step-1"]


def test_committer_that_is_closed_leaves_no_thread(disk: Disk, committer: Callable[..., Committer]) -> None:
    committer().close()
    until(lambda: all(thread.name != "checkpoints" for thread in threading.enumerate()))
