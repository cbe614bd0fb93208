"""The suite for readers notices each broken promise: a member that breaks one fails that check alone."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import storage.sources.readers.chunks
from storage.errors import InputError
from storage.formats.documents import Document
from storage.sources.readers.base import BadLine, Columns, Item, Reader
from storage.sources.readers.jsonl import JsonLinesReader
from tests.conformance.reader_checks import CHECKS, Sample

Wanted = Callable[[int], bool]


class Edited(JsonLinesReader):
    """Changes what is read."""

    def read(self, path: Path, name: str, columns: Columns, wanted: Wanted) -> Iterator[Item]:
        for offset, item in super().read(path, name, columns, wanted):
            yield self.edit(offset, item)

    def edit(self, offset: int, item: Document | BadLine) -> Item:
        return offset, item


class HasNoVersion(JsonLinesReader):
    version = 0


class Strips(Edited):
    def edit(self, offset: int, item: Document | BadLine) -> Item:
        return offset, replace(item, text=item.text.strip()) if isinstance(item, Document) else item


class CountsFromZero(Edited):
    def edit(self, offset: int, item: Document | BadLine) -> Item:
        if isinstance(item, BadLine):
            return offset, item
        name, _, line = item.id.rpartition(":")
        return offset, replace(item, id=f"{name}:{int(line) - 1}")


class CountsOffsetsFromOne(JsonLinesReader):
    def read(self, path: Path, name: str, columns: Columns, wanted: Wanted) -> Iterator[Item]:
        for offset, item in super().read(path, name, columns, lambda offset: wanted(offset + 1)):
            yield offset + 1, item


class MeasuresTheCompressed(JsonLinesReader):
    def measure(self, path: Path, columns: Columns) -> int:
        super().measure(path, columns)
        return path.stat().st_size // 4


class GivesNoReason(Edited):
    def edit(self, offset: int, item: Document | BadLine) -> Item:
        return offset, replace(item, reason="") if isinstance(item, BadLine) else item


class IgnoresWanted(JsonLinesReader):
    def read(self, path: Path, name: str, columns: Columns, wanted: Wanted) -> Iterator[Item]:
        return super().read(path, name, columns, lambda offset: offset == 0 or wanted(offset))


class MeasuresAnew(JsonLinesReader):
    measured = 0

    def measure(self, path: Path, columns: Columns) -> int:
        MeasuresAnew.measured += 1
        return super().measure(path, columns) + self.measured


class TakesWhatIsThere(JsonLinesReader):
    def measure(self, path: Path, columns: Columns) -> int:
        try:
            return super().measure(path, columns)
        except InputError:
            return 0


class ReadsAllAtOnce(JsonLinesReader):
    def read(self, path: Path, name: str, columns: Columns, wanted: Wanted) -> Iterator[Item]:
        return iter(list(super().read(path, name, columns, wanted)))


BROKEN: dict[str, type[Reader]] = {
    "member_is_described": HasNoVersion,
    "documents_have_their_texts": Strips,
    "documents_have_name_line_and_subset": CountsFromZero,
    "records_have_their_offsets": CountsOffsetsFromOne,
    "offsets_lie_on_the_scale": MeasuresTheCompressed,
    "bad_records_are_named": GivesNoReason,
    "only_what_is_wanted_is_read": IgnoresWanted,
    "reading_is_repeatable": MeasuresAnew,
    "cut_file_is_refused_by_name": TakesWhatIsThere,
    "memory_is_bounded": ReadsAllAtOnce,
}


def test_every_check_has_a_broken_member() -> None:
    assert set(BROKEN) == set(CHECKS)


@pytest.mark.parametrize("promise", BROKEN)
def test_broken_reader_fails_its_check_alone(
    promise: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage.sources.readers.chunks, "CHUNK_BYTES", 32 << 10)
    failed = set()
    for name, check in CHECKS.items():
        (tmp_path / name).mkdir()
        sample = Sample(BROKEN[promise], ".jsonl.zst", tmp_path / name)
        try:
            check(sample)
        except (AssertionError, pytest.fail.Exception):
            failed.add(name)
    assert failed == {promise}
