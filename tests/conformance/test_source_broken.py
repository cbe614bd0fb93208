"""The suite for sources notices each broken promise: a member that breaks one fails that check alone."""

import os
import shutil
import time
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
from tests.conformance.source_mistake_checks import MISTAKE_CHECKS

pytestmark = pytest.mark.slow


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
            self.copy(name, target)
        if file_digest(target) != sha256:
            raise InputError(f"{name} must have sha256 {sha256}; copy it again")
        progress.update(name, target.stat().st_size, target.stat().st_size)
        return target

    def copy(self, name: str, target: Path) -> None:
        try:
            shutil.copyfile(self.source.folder / name, target)
        except FileNotFoundError as error:
            raise Fault(f"{name} must stay until it is read; put it back") from error


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
            (folder / name).write_text(f'{{"text": "{name}"}}\n')
        return cls.config_type(folder=str(folder))  # type: ignore[return-value]

    def digests(self) -> dict[str, str]:
        files = [path for path in self.folder.iterdir() if path.is_file()] if os.path.isdir(self.folder) else []
        if not files:
            raise InputError(f"folder must hold files, found none at {self.folder}")
        return {path.name: file_digest(path) for path in sorted(files)}

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
        if self.folder.name == "here":
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
            origin = self.source.folder / name
            return super().fetch(name, file_digest(origin) if origin.exists() else sha256, progress)


class TrustsWhatIsThere(Copies):
    class opened(Open):
        def fetch(self, name: str, sha256: str, progress: DownloadProgress) -> Path:
            target = self.folder / name
            origin = self.source.folder / name
            if not origin.exists():
                return super().fetch(name, sha256, progress)
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


class HalfConfig(CopiesConfig):
    half: bool = True

    def identity(self) -> dict[str, Any]:
        return {name: value for name, value in super().identity().items() if name != "half"}


class KeepsAFieldFromTheKey(Copies):
    config_type = HalfConfig


class ListsWhereItIs(Copies):
    def digests(self) -> dict[str, str]:
        if not os.path.isdir(os.path.relpath(self.folder, self.made)):
            raise InputError("folder must be one")
        return super().digests()

    def __init__(self, config: CopiesConfig) -> None:
        super().__init__(config)
        self.made = os.getcwd()


class CleansUp(Copies):
    @contextmanager
    def open(self, folder: Path) -> Iterator[OpenSource]:
        yield self.opened(self, folder)
        for path in folder.glob("*"):
            path.unlink()


class ThinksOfNoMistake(Copies):
    def digests(self) -> dict[str, str]:
        if self.folder.name == "no such place":
            raise KeyError("folder")
        return super().digests()


class ThinksOfNoEmptyPlace(Copies):
    def digests(self) -> dict[str, str]:
        if self.folder.name == "here" and not self.folder.exists():
            raise FileNotFoundError(self.folder)
        return super().digests()


class LosesTheName(Copies):
    class opened(Open):
        def copy(self, name: str, target: Path) -> None:
            if not (self.source.folder / name).exists() and self.source.folder.exists():
                raise Fault("a file must stay until it is read")
            super().copy(name, target)


class LeaksTheErrorOfItsPlace(Copies):
    class opened(Open):
        def copy(self, name: str, target: Path) -> None:
            if not self.source.folder.exists():
                raise ConnectionError("no route to host")
            super().copy(name, target)


class ServesOneThread(Copies):
    class opened(Open):
        def fetch(self, name: str, sha256: str, progress: DownloadProgress) -> Path:
            self.name = name
            time.sleep(0.05)
            return super().fetch(self.name, sha256, progress)


class ShowsThePassword(Copies):
    def __init__(self, config: CopiesConfig) -> None:
        super().__init__(config.model_copy(update={"folder": config.folder.removeprefix("file://")}))
        self.folder = Path(self.config.folder).absolute()
        self.origin = config.folder

    @classmethod
    def example(cls, folder: Path) -> CopiesConfig:
        return CopiesConfig(folder=f"file://{super().example(folder).folder}")


ALL = {**CHECKS, **MISTAKE_CHECKS}

BROKEN: dict[type[Source[Any]], set[str]] = {
    HasTwoKinds: {"config_names_its_kind_and_round_trips"},
    HasNoVersion: {"identity_has_kind_and_version"},
    KnowsItsPlace: {"moving_the_files_changes_no_identity"},
    ListsAsItComes: {"digests_are_repeated_and_sorted"},
    KeepsALog: {"digests_write_nothing"},
    NamesAHome: {"names_are_safe_and_readable"},
    ForgetsAReader: {"readers_are_those_of_the_files"},
    DividesTwice: {"splits_are_known_and_given_once"},
    ChangesABit: {"fetched_files_have_their_checksums"},
    FetchesElsewhere: {"fetched_files_lie_where_they_may"},
    TrustsTheRequest: {"another_checksum_is_refused_with_the_name"},
    TrustsWhatIsThere: {"changed_byte_is_noticed"},
    BringsAllAgain: {"finished_files_are_not_brought_again"},
    GivesUpOnRests: {"rests_of_a_killed_attempt_do_no_harm"},
    IsSilent: {"progress_counts_all_bytes_and_stops"},
    StaysRelative: {"pickled_source_works_in_another_folder", "digests_are_the_same_in_another_folder"},
    KeepsAFieldFromTheKey: {"every_field_is_in_the_key_unless_excluded"},
    ListsWhereItIs: {"digests_are_the_same_in_another_folder"},
    ThinksOfNoMistake: {"mistakes_are_input_errors"},
    ThinksOfNoEmptyPlace: {"place_without_files_is_an_input_error"},
    LosesTheName: {"missing_file_is_named"},
    LeaksTheErrorOfItsPlace: {"unreachable_place_is_a_fault"},
    ServesOneThread: {"opened_source_serves_many_threads"},
    ShowsThePassword: {"passwords_are_not_shown"},
    # What is gone can be neither compared nor continued.
    CleansUp: {
        "fetched_files_outlive_the_with",
        "fetched_files_have_their_checksums",
        "fetched_files_lie_where_they_may",
        "changed_byte_is_noticed",
        "finished_files_are_not_brought_again",
        "rests_of_a_killed_attempt_do_no_harm",
        "progress_counts_all_bytes_and_stops",
        "pickled_source_works_in_another_folder",
        "opened_source_serves_many_threads",
    },
}
"""Broken source -> the checks that it fails."""


def test_every_check_has_a_broken_member() -> None:
    assert set().union(*BROKEN.values()) == set(ALL)


def failures(member: type[Source[Any]], folder: Path) -> set[str]:
    failed = set()
    for name, check in ALL.items():
        (folder / name).mkdir()
        try:
            check(Corpus(member, folder / name))
        except (AssertionError, InputError, Fault, OSError, KeyError, pytest.fail.Exception):
            failed.add(name)
    return failed


def test_source_that_keeps_its_promises_fails_no_check(tmp_path: Path) -> None:
    assert failures(Copies, tmp_path) == set()


@pytest.mark.parametrize("member", BROKEN, ids=lambda member: member.__name__)
def test_broken_source_fails_its_check_alone(member: type[Source[Any]], tmp_path: Path) -> None:
    assert failures(member, tmp_path) == BROKEN[member]
