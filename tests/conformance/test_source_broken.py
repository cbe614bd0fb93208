"""The suite for sources notices each broken promise: a member that breaks one fails that check alone."""

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

from storage.errors import Fault, InputError
from storage.sources.base import OpenSource, Source, SourceConfig
from storage.sources.checked_files import file_digest
from storage.sources.progress import DownloadProgress
from tests.conformance.source_checks import CHECKS, Corpus


class CopiesConfig(SourceConfig):
    version: ClassVar[int] = 1
    excluded_from_key: ClassVar[frozenset[str]] = frozenset({"folder"})

    kind: Literal["copies"] = "copies"
    folder: str


class Open(OpenSource):
    """Copies files into a folder, whole ones once."""

    def __init__(self, source: "Copies", folder: Path) -> None:
        self.source = source
        self.folder = folder

    def fetch(self, name: str, sha256: str, progress: DownloadProgress) -> Path:
        target = self.folder / name
        if not target.is_file() or file_digest(target) != sha256:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.source.folder / name, target)
        if file_digest(target) != sha256:
            raise InputError(f"{name} must have sha256 {sha256}; copy it again")
        progress.update(name, target.stat().st_size, target.stat().st_size)
        return target


class Copies(Source[CopiesConfig]):
    """A source that keeps its promises: what breaks one differs from it in one place."""

    config_type = CopiesConfig
    opened: ClassVar[type[Open]] = Open

    def __init__(self, config: CopiesConfig) -> None:
        super().__init__(config)
        self.folder = Path(config.folder).absolute()

    @classmethod
    def example(cls, folder: Path) -> CopiesConfig:
        for name in ("b.txt", "a.jsonl"):
            (folder / name).write_text('{"text": "a"}\n')
        return cls.config_type(folder=str(folder))  # type: ignore[return-value]

    def digests(self) -> dict[str, str]:
        return {path.name: file_digest(path) for path in sorted(self.folder.iterdir())}

    @contextmanager
    def open(self, folder: Path) -> Iterator[OpenSource]:
        yield self.opened(self, folder)


class TwoKindsConfig(CopiesConfig):
    kind: Literal["copies", "copy"] = "copies"  # type: ignore[assignment]


class HasTwoKinds(Copies):
    config_type = TwoKindsConfig

    @classmethod
    def example(cls, folder: Path) -> CopiesConfig:
        return TwoKindsConfig(folder=super().example(folder).folder, kind="copy")


class UnversionedConfig(CopiesConfig):
    version: ClassVar[int] = 0


class HasNoVersion(Copies):
    config_type = UnversionedConfig


class PlacedConfig(CopiesConfig):
    excluded_from_key: ClassVar[frozenset[str]] = frozenset()


class KnowsItsPlace(Copies):
    config_type = PlacedConfig


class ListsAsItComes(Copies):
    def digests(self) -> dict[str, str]:
        return dict(reversed(super().digests().items()))

    @contextmanager
    def open(self, folder: Path) -> Iterator[OpenSource]:
        class Sorted(Open):
            def list_files(self, digests: Mapping[str, str]) -> dict[str, str]:
                return dict(sorted(digests.items()))

        yield Sorted(self, folder)


class KeepsALog(Copies):
    def digests(self) -> dict[str, str]:
        (self.folder.parent / "log").touch()
        return super().digests()


class NamesAHome(Copies):
    @classmethod
    def example(cls, folder: Path) -> CopiesConfig:
        config = super().example(folder)
        (folder / "a.jsonl").rename(folder / "~a.jsonl")
        return config


class ForgetsAReader(Copies):
    def readers(self, names: Iterable[str]) -> set[str]:
        return {"jsonl"}


class DividesTwice(Copies):
    def split_of(self, name: str) -> str:
        return "val" if name.startswith("b") else "train"

    def hold_out(self) -> dict[str, float]:
        return {"val": 0.1}


class FetchesElsewhere(Copies):
    class opened(Open):
        def fetch(self, name: str, sha256: str, progress: DownloadProgress) -> Path:
            return Path(os.path.relpath(super().fetch(name, sha256, progress)))


class TrustsTheRequest(Copies):
    class opened(Open):
        def fetch(self, name: str, sha256: str, progress: DownloadProgress) -> Path:
            return super().fetch(name, file_digest(self.source.folder / name), progress)


class TrustsWhatIsThere(Copies):
    class opened(Open):
        def fetch(self, name: str, sha256: str, progress: DownloadProgress) -> Path:
            target = self.folder / name
            origin = self.source.folder / name
            whole = origin.stat().st_size
            if target.is_file() and target.stat().st_size == whole and file_digest(origin) == sha256:
                progress.update(name, whole, whole)
                return target
            return super().fetch(name, sha256, progress)


class BringsAllAgain(Copies):
    class opened(Open):
        def fetch(self, name: str, sha256: str, progress: DownloadProgress) -> Path:
            (self.folder / name).unlink(missing_ok=True)
            return super().fetch(name, sha256, progress)


class GivesUpOnRests(Copies):
    class opened(Open):
        def fetch(self, name: str, sha256: str, progress: DownloadProgress) -> Path:
            target = self.folder / name
            if target.is_file() and target.stat().st_size < (self.source.folder / name).stat().st_size:
                raise Fault(f"{name} is not whole")
            return super().fetch(name, sha256, progress)


class IsSilent(Copies):
    class opened(Open):
        def fetch(self, name: str, sha256: str, progress: DownloadProgress) -> Path:
            return super().fetch(name, sha256, DownloadProgress(1))


class StaysRelative(Copies):
    def __init__(self, config: CopiesConfig) -> None:
        super().__init__(config)
        self.folder = Path(config.folder)


class ChangesABit(Copies):
    class opened(Open):
        def fetch(self, name: str, sha256: str, progress: DownloadProgress) -> Path:
            path = super().fetch(name, sha256, progress)
            if name != "b.txt":
                return path
            other = path.with_name("other.txt")
            zeros = bytes(path.stat().st_size)
            if not other.exists() or other.read_bytes() != zeros:
                other.write_bytes(zeros)
            return other


BROKEN: dict[str, type[Source[Any]]] = {
    "config_names_its_kind_and_round_trips": HasTwoKinds,
    "identity_has_kind_and_version": HasNoVersion,
    "moving_the_files_changes_no_identity": KnowsItsPlace,
    "digests_are_repeated_and_sorted": ListsAsItComes,
    "digests_write_nothing": KeepsALog,
    "names_are_safe_and_readable": NamesAHome,
    "readers_are_those_of_the_files": ForgetsAReader,
    "splits_are_known_and_given_once": DividesTwice,
    "fetched_files_have_their_checksums": ChangesABit,
    "fetched_files_lie_where_they_may": FetchesElsewhere,
    "another_checksum_is_refused_with_the_name": TrustsTheRequest,
    "changed_byte_is_noticed": TrustsWhatIsThere,
    "finished_files_are_not_brought_again": BringsAllAgain,
    "rests_of_a_killed_attempt_do_no_harm": GivesUpOnRests,
    "progress_counts_all_bytes_and_stops": IsSilent,
    "pickled_source_works_in_another_folder": StaysRelative,
}


def test_every_check_has_a_broken_member() -> None:
    assert set(BROKEN) == set(CHECKS)


def failures(member: type[Source[Any]], folder: Path) -> set[str]:
    failed = set()
    for name, check in CHECKS.items():
        (folder / name).mkdir()
        try:
            check(Corpus(member, folder / name))
        except (AssertionError, InputError, Fault, OSError, pytest.fail.Exception):
            failed.add(name)
    return failed


def test_source_that_keeps_its_promises_fails_no_check(tmp_path: Path) -> None:
    assert failures(Copies, tmp_path) == set()


@pytest.mark.parametrize("promise", BROKEN)
def test_broken_source_fails_its_check_alone(promise: str, tmp_path: Path) -> None:
    assert failures(BROKEN[promise], tmp_path) == {promise}
