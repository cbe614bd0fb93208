"""The suite for store backends notices each broken promise: a member that breaks one fails that check alone."""

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self
from urllib.parse import unquote

import pytest

from storage.backends.local import LocalBackend, open_folder
from tests.conformance.backend_checks import CHECKS, Place
from tests.conformance.backend_race_checks import RACE_CHECKS

pytestmark = pytest.mark.slow


class Local(LocalBackend):
    """Keeps its promises: what breaks one differs from it in one place."""

    @classmethod
    def open(cls, url: str) -> Self:
        return cls(open_folder(url).root)


class TrimsLines(Local):
    def read(self, path: str) -> bytes:
        return super().read(path).removesuffix(b"\r\n")


class DecodesNames(Local):
    def write(self, path: str, data: bytes) -> None:
        super().write(unquote(path), data)


class InventsFiles(Local):
    def size(self, path: str) -> int:
        try:
            return super().size(path)
        except FileNotFoundError:
            return 0


class ListsAsItComes(Local):
    def list(self, folder: str) -> Iterator[tuple[str, int, float]]:
        yield from sorted(super().list(folder), key=lambda found: (found[0].count("/"), found[0]))


class LooksAgainWhileItLists(Local):
    def list(self, folder: str) -> Iterator[tuple[str, int, float]]:
        for path, *_ in super().list(folder):
            status = (self.root / path).stat()
            yield path, status.st_size, status.st_mtime


class HashesTheFirstPiece(Local):
    def digest(self, path: str) -> tuple[int, str]:
        data = self.read(path)
        return len(data), hashlib.sha256(data[: 16 << 20]).hexdigest()


class Copies(Local):
    def put(self, local: Path, path: str) -> None:
        shutil.copyfile(local, copy := local.with_suffix(".copy"))
        super().put(copy, path)


class CreatesOnce(Local):
    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.created: set[str] = set()

    def create(self, path: str, data: bytes) -> bool:
        if path in self.created or not super().create(path, data):
            return False
        self.created.add(path)
        return True


class CreatesInPlace(Local):
    def create(self, path: str, data: bytes) -> bool:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        try:
            with (self.root / path).open("xb", buffering=0) as file:
                time.sleep(0.01)
                file.write(data)
        except FileExistsError:
            return False
        return True


class LooksBeforeItCreates(Local):
    def create(self, path: str, data: bytes) -> bool:
        if (self.root / path).exists():
            return False
        time.sleep(0.05)
        self.write(path, data)
        return True


class LosesEveryRace(Local):
    def create(self, path: str, data: bytes) -> bool:
        time.sleep(0.05)
        return super().create(path, data) and not data.isdigit()


class DeletesOnlyWhatIsThere(Local):
    def delete(self, path: str) -> None:
        (self.root / path).stat()
        super().delete(path)


class DeletesNextDoor(Local):
    def delete(self, path: str) -> None:
        super().delete(path)
        Path(f"{self.root}-2", path).unlink(missing_ok=True)


class WritesInPlace(Local):
    def write(self, path: str, data: bytes) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        with (self.root / path).open("wb", buffering=0) as file:
            for start in range(0, len(data), 10_000):
                file.write(data[start : start + 10_000])
                time.sleep(0.001)


class NeverFinishes(Local):
    def unfinished(self) -> Iterator[tuple[str, int, float]]:
        yield "scratch/write", 1, time.time()  # abandoned or not
        yield from super().unfinished()


class SharesABuffer(Local):
    def write(self, path: str, data: bytes) -> None:
        self.buffer = data
        time.sleep(0.001)
        super().write(path, self.buffer)


class BelongsToOneProcess(Local):
    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.process = os.getpid()

    def write(self, path: str, data: bytes) -> None:
        assert self.process == os.getpid(), "the connection belongs to another process"
        super().write(path, data)


class MakesItsRoot(Local):
    def __init__(self, root: Path) -> None:
        super().__init__(root)
        with contextlib.suppress(OSError):
            self.root.mkdir(parents=True, exist_ok=True)


class TakesAnyUrl(Local):
    @classmethod
    def open(cls, url: str) -> Self:
        return cls(Path(url.removeprefix("file://")))


class StaysRelative(Local):
    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.url = os.path.relpath(self.root)


class LinksElsewhere(Local):
    def local(self, path: str) -> Path:
        link = self.root / path.replace("/", "-")
        link.symlink_to(self.root / path)
        return link


class ScratchWhereItLists(Local):
    def scratch(self) -> Path:
        return self.root / "artifacts"

    def unfinished(self) -> Iterator[tuple[str, int, float]]:
        yield from ()


class LooksEmpty(Local):
    def list(self, folder: str) -> Iterator[tuple[str, int, float]]:
        try:
            yield from super().list(folder)
        except OSError:
            return


class LosesTheLocalFile(Local):
    def put(self, local: Path, path: str) -> None:
        try:
            super().put(local, path)
        finally:
            local.unlink(missing_ok=True)


ALL = {**CHECKS, **RACE_CHECKS}
BROKEN: dict[type[Local], set[str]] = {
    TrimsLines: {"read_gives_what_was_written"},
    DecodesNames: {"any_name_is_kept"},
    InventsFiles: {"missing_file_is_not_found"},
    ListsAsItComes: {"list_is_sorted_recursive_complete_and_relative"},
    LooksAgainWhileItLists: {"store_may_change_while_it_is_listed"},
    HashesTheFirstPiece: {"size_and_digest_are_right"},
    Copies: {"put_takes_the_local_file_away"},
    CreatesOnce: {"create_leaves_what_is_there"},
    CreatesInPlace: {"created_file_is_whole_while_it_appears_and_after_a_kill"},
    LooksBeforeItCreates: {"create_has_a_winner_among_threads", "create_has_a_winner_among_processes"},
    LosesEveryRace: {"create_has_a_winner_among_threads", "create_has_a_winner_among_processes"},
    DeletesOnlyWhatIsThere: {"delete_is_no_error_twice"},
    DeletesNextDoor: {"nothing_outside_the_root_is_touched"},
    WritesInPlace: {"file_is_whole_while_it_is_replaced_and_after_a_kill"},
    NeverFinishes: {"unfinished_writes_can_be_abandoned", "scratch_is_a_place_to_put_from"},
    SharesABuffer: {"threads_do_not_disturb_each_other"},
    BelongsToOneProcess: {"child_of_a_fork_goes_on_with_it"},
    MakesItsRoot: {"opening_touches_nothing"},
    TakesAnyUrl: {"impossible_url_is_an_input_error"},
    StaysRelative: {"url_opens_the_same_root_from_anywhere"},
    LinksElsewhere: {"local_path_leads_to_the_file"},
    ScratchWhereItLists: {"scratch_is_a_place_to_put_from"},
    LooksEmpty: {"unreachable_root_never_looks_empty"},
    LosesTheLocalFile: {"failed_put_keeps_the_local_file"},
}
"""Broken member -> the checks that it fails."""


def failures(member: type[Local], tmp_path: Path) -> set[str]:
    failed = set()
    (tmp_path / "file").write_bytes(b"in the way of a folder")
    for name, check in ALL.items():
        disk, folder = tmp_path / name, tmp_path / name / "machine"
        folder.mkdir(parents=True)
        url, unreachable = f"file://{disk}/store", f"file://{tmp_path}/file/store"
        try:
            check(Place(member.open, url, folder, lambda at=unreachable: member.open(at), disk))  # type: ignore[misc]
        except (AssertionError, OSError):
            failed.add(name)
    return failed


def test_backend_that_keeps_its_promises_fails_no_check(tmp_path: Path) -> None:
    assert failures(Local, tmp_path) == set()


@pytest.mark.parametrize("member", BROKEN, ids=lambda member: member.__name__)
def test_broken_backend_fails_the_check_of_its_promise_alone(member: type[Local], tmp_path: Path) -> None:
    assert failures(member, tmp_path) == BROKEN[member]


def test_every_check_is_failed_by_some_member() -> None:
    assert set().union(*BROKEN.values()) == {*ALL}
