"""The suite for store backends notices each broken promise: a member that breaks one fails that check alone."""

import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

from storage.backends.local import LocalBackend
from tests.conformance.backend_checks import CHECKS, Place


class TrimsLines(LocalBackend):
    def read(self, path: str) -> bytes:
        return super().read(path).removesuffix(b"\r\n")


class DecodesNames(LocalBackend):
    def write(self, path: str, data: bytes) -> None:
        super().write(unquote(path), data)


class InventsFiles(LocalBackend):
    def size(self, path: str) -> int:
        try:
            return super().size(path)
        except FileNotFoundError:
            return 0


class ListsAsItComes(LocalBackend):
    def list(self, folder: str) -> Iterator[tuple[str, int, float]]:
        yield from sorted(super().list(folder), key=lambda found: (found[0].count("/"), found[0]))


class HashesTheFirstPiece(LocalBackend):
    def digest(self, path: str) -> tuple[int, str]:
        data = self.read(path)
        return len(data), hashlib.sha256(data[: 16 << 20]).hexdigest()


class Copies(LocalBackend):
    def put(self, local: Path, path: str) -> None:
        shutil.copyfile(local, copy := local.with_suffix(".copy"))
        super().put(copy, path)


class CreatesOnce(LocalBackend):
    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.created: set[str] = set()

    def create(self, path: str, data: bytes) -> bool:
        if path in self.created or not super().create(path, data):
            return False
        self.created.add(path)
        return True


class LooksBeforeItCreates(LocalBackend):
    def create(self, path: str, data: bytes) -> bool:
        if (self.root / path).exists():
            return False
        time.sleep(0.05)
        self.write(path, data)
        return True


class LosesEveryRace(LocalBackend):
    def create(self, path: str, data: bytes) -> bool:
        time.sleep(0.05)
        return super().create(path, data) and not data.isdigit()


class DeletesOnlyWhatIsThere(LocalBackend):
    def delete(self, path: str) -> None:
        (self.root / path).stat()
        super().delete(path)


class DeletesNextDoor(LocalBackend):
    def delete(self, path: str) -> None:
        super().delete(path)
        Path(f"{self.root}-2", path).unlink(missing_ok=True)


class WritesInPlace(LocalBackend):
    def write(self, path: str, data: bytes) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        with (self.root / path).open("wb", buffering=0) as file:
            for start in range(0, len(data), 10_000):
                file.write(data[start : start + 10_000])
                time.sleep(0.001)


class NeverFinishes(LocalBackend):
    def unfinished(self) -> Iterator[tuple[str, int, float]]:
        yield "scratch/write", 1, time.time()  # abandoned or not
        yield from super().unfinished()


class SharesABuffer(LocalBackend):
    def write(self, path: str, data: bytes) -> None:
        self.buffer = data
        time.sleep(0.001)
        super().write(path, self.buffer)


class BelongsToOneProcess(LocalBackend):
    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.process = os.getpid()

    def write(self, path: str, data: bytes) -> None:
        assert self.process == os.getpid(), "the connection belongs to another process"
        super().write(path, data)


class StaysRelative(LocalBackend):
    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.url = os.path.relpath(self.root)


class LinksElsewhere(LocalBackend):
    def local(self, path: str) -> Path:
        link = self.root / path.replace("/", "-")
        link.symlink_to(self.root / path)
        return link


class ScratchWhereItLists(LocalBackend):
    def scratch(self) -> Path:
        return self.root / "artifacts"

    def unfinished(self) -> Iterator[tuple[str, int, float]]:
        yield from ()


class LooksEmpty(LocalBackend):
    def list(self, folder: str) -> Iterator[tuple[str, int, float]]:
        try:
            yield from super().list(folder)
        except OSError:
            return


class LosesTheLocalFile(LocalBackend):
    def put(self, local: Path, path: str) -> None:
        try:
            super().put(local, path)
        finally:
            local.unlink(missing_ok=True)


BROKEN: dict[type[LocalBackend], set[str]] = {
    TrimsLines: {"read_gives_what_was_written"},
    DecodesNames: {"any_name_is_kept"},
    InventsFiles: {"missing_file_is_not_found"},
    ListsAsItComes: {"list_is_sorted_recursive_complete_and_relative"},
    HashesTheFirstPiece: {"size_and_digest_are_right"},
    Copies: {"put_takes_the_local_file_away"},
    CreatesOnce: {"create_leaves_what_is_there"},
    LooksBeforeItCreates: {"create_has_a_winner_among_threads", "create_has_a_winner_among_processes"},
    LosesEveryRace: {"create_has_a_winner_among_threads", "create_has_a_winner_among_processes"},
    DeletesOnlyWhatIsThere: {"delete_is_no_error_twice"},
    DeletesNextDoor: {"nothing_outside_the_root_is_touched"},
    WritesInPlace: {"file_is_whole_while_it_is_replaced_and_after_a_kill"},
    NeverFinishes: {"unfinished_writes_can_be_abandoned", "scratch_is_a_place_to_put_from"},
    SharesABuffer: {"threads_do_not_disturb_each_other"},
    BelongsToOneProcess: {"child_of_a_fork_goes_on_with_it"},
    StaysRelative: {"url_opens_the_same_root_from_anywhere"},
    LinksElsewhere: {"local_path_leads_to_the_file"},
    ScratchWhereItLists: {"scratch_is_a_place_to_put_from"},
    LooksEmpty: {"unreachable_root_never_looks_empty"},
    LosesTheLocalFile: {"failed_put_keeps_the_local_file"},
}
"""Broken member -> the checks that it fails."""


@pytest.mark.parametrize("member", BROKEN, ids=lambda member: member.__name__)
def test_broken_backend_fails_the_check_of_its_promise_alone(member: type[LocalBackend], tmp_path: Path) -> None:
    failed = set()
    (tmp_path / "file").write_bytes(b"in the way of a folder")
    for name, check in CHECKS.items():
        root, folder = tmp_path / name / "store", tmp_path / name / "machine"
        folder.mkdir(parents=True)
        place = Place(
            lambda url: member(Path(url)), str(root), folder, lambda: member(tmp_path / "file" / "store")
        )
        try:
            check(place)
        except (AssertionError, OSError):
            failed.add(name)
    assert failed == BROKEN[member]


def test_every_check_is_failed_by_some_member() -> None:
    assert set().union(*BROKEN.values()) == {*CHECKS}
