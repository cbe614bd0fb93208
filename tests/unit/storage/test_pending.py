from collections.abc import Callable
from pathlib import Path

import pytest

from storage.artifacts.pending import commit_pending, drop_pending, keep_pending, pending_parts
from storage.artifacts.store import Store
from storage.artifacts.writer import PENDING, ArtifactWriter
from storage.backends.base import StoreBackend
from storage.errors import StoreAwayError
from tests.unit.storage.stored import KEY, STAGE

Make = Callable[..., Path]


def keep(writer: ArtifactWriter, part: str, file: Make) -> None:
    files = {"weights": file(f"{part} weights".encode(), "w.bin"), "state": file(f"{part} state".encode(), "s")}
    keep_pending(writer, part, files)
    assert not any(path.exists() for path in files.values())


def again(writer: ArtifactWriter) -> ArtifactWriter:
    """The next attempt on this machine."""
    return ArtifactWriter(Store(writer.store.url), STAGE, KEY)


def test_pending_part_is_committed_by_a_later_attempt(writer: ArtifactWriter, file: Make) -> None:
    keep(writer, "step-2", file)
    keep(writer, "step-1", file)
    later = again(writer)
    assert pending_parts(later) == ["step-1", "step-2"]
    assert later.parts() == {}
    commit_pending(later, "step-2")
    drop_pending(later, "step-1")
    assert pending_parts(later) == []
    (part,) = later.parts().values()
    found = {stored.role: later.open(stored).read_bytes() for stored in part.files}
    assert found == {"weights": b"step-2 weights", "state": b"step-2 state"}


@pytest.mark.parametrize("fails", ["first put", "second put", "record"])
def test_pending_part_stays_whole_when_its_commit_is_cut_off(
    fails: str, writer: ArtifactWriter, file: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(writer, "step-1", file)
    backend: StoreBackend = writer.store.backend
    method = "write" if fails == "record" else "put"
    real, calls = getattr(backend, method), []

    def cut_off(*arguments: object) -> None:
        calls.append(arguments)
        if len(calls) == (2 if fails == "second put" else 1):
            raise StoreAwayError("gone")
        real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(backend, method, cut_off)
        with pytest.raises(StoreAwayError):
            commit_pending(writer, "step-1")
    later = again(writer)
    assert pending_parts(later) == ["step-1"]
    assert later.parts() == {}
    commit_pending(later, "step-1")
    assert sorted(later.parts()) == ["step-1"]


@pytest.mark.parametrize("damage", ["no record", "torn record", "no file", "other bytes"])
def test_pending_part_that_is_not_whole_is_removed(damage: str, local_writer: ArtifactWriter, file: Make) -> None:
    keep(local_writer, "step-1", file)
    keep(local_writer, "step-2", file)
    folder = local_writer.shared_scratch() / PENDING / "step-2"
    if damage == "no record":
        (folder / "part.json").unlink()
    elif damage == "torn record":
        (folder / "part.json").write_bytes(b"{")
    elif damage == "no file":
        (folder / "weights" / "w.bin").unlink()
    else:
        (folder / "weights" / "w.bin").write_bytes(b"step-2 weighty")
    assert pending_parts(again(local_writer)) == ["step-1"]
    assert not folder.exists()


def test_work_that_is_done_anew_takes_no_pending_part(local_writer: ArtifactWriter, file: Make) -> None:
    keep(local_writer, "step-1", file)
    local_writer.forget_parts()
    assert pending_parts(local_writer) == []
