"""The suite for readers notices each broken promise: a member that breaks one fails that check alone."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard

import storage.sources.readers.chunks
from storage.errors import InputError
from storage.formats.documents import Document
from storage.sources.readers.base import BadLine, Columns, Item, Reader
from storage.sources.readers.chunks import read_chunks
from storage.sources.readers.jsonl import JsonLinesReader
from tests.conformance.reader_checks import CHECKS, Sample
from tests.conformance.reader_damage_checks import DAMAGE_CHECKS

pytestmark = pytest.mark.slow

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
        except InputError as error:
            if "cut short" not in str(error):
                raise
            return 0


class ReadsAllAtOnce(JsonLinesReader):
    def read(self, path: Path, name: str, columns: Columns, wanted: Wanted) -> Iterator[Item]:
        return iter(list(super().read(path, name, columns, wanted)))


class IgnoresColumns(JsonLinesReader):
    def read(self, path: Path, name: str, columns: Columns, wanted: Wanted) -> Iterator[Item]:
        return super().read(path, name, replace(columns, text=("text",)), wanted)


class TriesOneFieldAlone(JsonLinesReader):
    def read(self, path: Path, name: str, columns: Columns, wanted: Wanted) -> Iterator[Item]:
        return super().read(path, name, replace(columns, text=columns.text[:1]), wanted)


class KnowsSmallLettersAlone(JsonLinesReader):
    def read(self, path: Path, name: str, columns: Columns, wanted: Wanted) -> Iterator[Item]:
        if path.suffix.isupper():
            raise InputError(f"{path} is of no known kind")
        return super().read(path, name, columns, wanted)


class RemembersTheFile(JsonLinesReader):
    path = Path()

    def read(self, path: Path, name: str, columns: Columns, wanted: Wanted) -> Iterator[Item]:
        RemembersTheFile.path = path
        for offset, item in super().read(path, name, columns, wanted):
            if self.path == path:  # else the other one is being read
                yield offset, item


class MeasuresAllAtOnce(JsonLinesReader):
    def measure(self, path: Path, columns: Columns) -> int:
        return len(b"".join(list(read_chunks(path))))


class RaisesOnBadJson(Edited):
    def edit(self, offset: int, item: Document | BadLine) -> Item:
        if isinstance(item, BadLine) and item.reason.startswith("not JSON") and item.excerpt[:3] == '{"t':
            raise ValueError(item.reason)
        return offset, item


class LeaksErrorsOfItsLibrary(JsonLinesReader):
    def read(self, path: Path, name: str, columns: Columns, wanted: Wanted) -> Iterator[Item]:
        try:
            yield from super().read(path, name, columns, wanted)
        except InputError as error:
            if "corruption" in str(error):
                raise zstandard.ZstdError("data corruption") from error
            raise


class CannotTellPictures(JsonLinesReader):
    def measure(self, path: Path, columns: Columns) -> int:
        try:
            return super().measure(path, columns)
        except InputError as error:
            if path.read_bytes()[1:4] == b"PNG":
                raise IndexError("no such colour") from error
            raise


class ReplacesBytes(Edited):
    def edit(self, offset: int, item: Document | BadLine) -> Item:
        if (
            isinstance(item, BadLine)
            and item.excerpt.startswith('{"text":"')
            and item.reason.startswith("not UTF-8")
        ):
            text = item.excerpt[9:-2].replace("\\xff", "\ufffd")
            return offset, Document(f"{item.file}:{item.line}", "mine", text)
        return offset, item


class KnowsALimit(Edited):
    def edit(self, offset: int, item: Document | BadLine) -> Item:
        if isinstance(item, Document) and len(item.text) > 131_072:
            return offset, BadLine("some/name", int(item.id.rpartition(":")[2]), offset, "too long", b"", 0)
        return offset, item


class CountsNoBlankLines(JsonLinesReader):
    def read(self, path: Path, name: str, columns: Columns, wanted: Wanted) -> Iterator[Item]:
        for line, (offset, item) in enumerate(super().read(path, name, columns, lambda offset: True), start=1):
            if wanted(offset):
                is_bad = isinstance(item, BadLine)
                yield offset, replace(item, line=line) if is_bad else replace(item, id=f"{name}:{line}")


class GivesUpOnBytes(Edited):
    def edit(self, offset: int, item: Document | BadLine) -> Item:
        if isinstance(item, BadLine) and item.excerpt.startswith("\\xff"):
            raise InputError(f"a.jsonl.zst is damaged: {item.reason}")
        return offset, item


ALL = {**CHECKS, **DAMAGE_CHECKS}

BROKEN: dict[type[Reader], set[str]] = {
    HasNoVersion: {"member_is_described"},
    # What is wrong in every file is so in the others, too.
    Strips: {"documents_have_their_texts", "text_is_where_the_columns_say", "other_lines_are_as_before"},
    CountsFromZero: {
        "documents_have_name_line_and_subset",
        "text_that_is_not_utf8_is_a_bad_record",
        "other_lines_are_as_before",
    },
    CountsOffsetsFromOne: {"records_have_their_offsets", "other_lines_are_as_before"},
    MeasuresTheCompressed: {"offsets_lie_on_the_scale", "end_of_name_may_be_in_upper_case"},
    GivesNoReason: {"bad_records_are_named"},
    IgnoresWanted: {"only_what_is_wanted_is_read"},
    MeasuresAnew: {"reading_is_repeatable"},
    TakesWhatIsThere: {"cut_file_is_refused_by_name"},
    ReadsAllAtOnce: {"memory_is_bounded"},
    IgnoresColumns: {"text_is_where_the_columns_say", "text_is_the_first_field_that_is_there"},
    TriesOneFieldAlone: {"text_is_the_first_field_that_is_there"},
    KnowsSmallLettersAlone: {"end_of_name_may_be_in_upper_case"},
    RemembersTheFile: {"other_files_have_no_part_in_it"},
    MeasuresAllAtOnce: {"memory_is_bounded"},
    RaisesOnBadJson: {"damaged_content_is_named_or_refused"},
    LeaksErrorsOfItsLibrary: {"damaged_compression_is_refused"},
    CannotTellPictures: {"file_of_another_kind_is_named_or_refused"},
    ReplacesBytes: {"text_that_is_not_utf8_is_a_bad_record"},
    KnowsALimit: {"long_records_are_read"},
    CountsNoBlankLines: {"other_lines_are_as_before"},
    GivesUpOnBytes: {"other_lines_are_as_before"},
}
"""Broken reader -> the checks that it fails."""


def test_every_check_has_a_broken_member() -> None:
    assert set().union(*BROKEN.values()) == set(ALL)


@pytest.mark.parametrize("member", BROKEN, ids=lambda member: member.__name__)
def test_broken_reader_fails_its_check_alone(
    member: type[Reader], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage.sources.readers.chunks, "CHUNK_BYTES", 32 << 10)
    failed = set()
    for name, check in ALL.items():
        (tmp_path / name).mkdir()
        sample = Sample(member, ".jsonl.zst", tmp_path / name)
        try:
            check(sample)
        except (AssertionError, LookupError, ValueError, zstandard.ZstdError, pytest.fail.Exception):
            failed.add(name)
    assert failed == BROKEN[member]
