"""What every reader promises (storage/sources/readers/base.py), one check per promise, on any member.

A check gets a `Sample`: a file that the member wrote itself, with what it says must be read from it. It fails with
an AssertionError, or with whatever the member raises.
"""

import hashlib
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

import pytest

from storage.errors import InputError
from storage.formats.documents import Document
from storage.sources.readers.base import BadLine, Columns, Item, Reader
from storage.sources.readers.chunks import COMPRESSIONS
from storage.sources.readers.registry import make_reader

TEXTS = ("one", "дүрт\tbish 🙂", "three " * 40, "four")
MANY = 30_000
"""Texts of 64 characters: 1.9 MB, many times what a reader may hold."""


@dataclass
class Sample:
    """The example of a member as a file with one of its suffixes."""

    member: type[Reader]
    suffix: str
    folder: Path
    texts: tuple[str, ...] = TEXTS
    path: Path = field(init=False)
    expected: list[tuple[int, str | None]] = field(init=False)

    def __post_init__(self) -> None:
        self.path = self.folder / f"a{self.suffix}"
        self.expected = self.member.example(self.path, self.texts)

    def read(self, wanted: Callable[[int], bool] = lambda offset: True) -> list[Item]:
        """Return everything that is read under the name `some/name`."""
        return list(make_reader(self.member).read(self.path, "some/name", Columns(subset="mine"), wanted))

    def measure(self) -> int:
        """Return the length of the scale of offsets."""
        return make_reader(self.member).measure(self.path, Columns())


def member_is_described(sample: Sample) -> None:
    assert sample.member.name
    assert sample.member.version >= 1
    assert sample.member.suffixes
    assert all(suffix.strip() == suffix != "" and "/" not in suffix for suffix in sample.member.suffixes)
    assert all(suffix == suffix.lower() for suffix in sample.member.suffixes)


def documents_have_their_texts(sample: Sample) -> None:
    texts = [item.text for _, item in sample.read() if isinstance(item, Document)]
    assert texts == [text for _, text in sample.expected if text is not None]


def documents_have_name_line_and_subset(sample: Sample) -> None:
    lines = [number for number, (_, text) in enumerate(sample.expected, start=1) if text is not None]
    documents = [item for _, item in sample.read() if isinstance(item, Document)]
    assert [document.id.rpartition(":")[2] for document in documents] == [str(line) for line in lines]
    assert all(names_the_file(document.id.rpartition(":")[0]) for document in documents)
    assert {document.subset for document in documents} == {"mine"}


def records_have_their_offsets(sample: Sample) -> None:
    assert [offset for offset, _ in sample.read()] == [offset for offset, _ in sample.expected]


def offsets_lie_on_the_scale(sample: Sample) -> None:
    size = sample.measure()
    assert size >= max(offset for offset, _ in sample.expected)
    assert size >= sum(len(text.encode()) for _, text in sample.expected if text)


def bad_records_are_named(sample: Sample) -> None:
    bad = [item for _, item in sample.read() if isinstance(item, BadLine)]
    expected = [
        ("some/name", line, offset) for line, (offset, text) in enumerate(sample.expected, start=1) if text is None
    ]
    assert [("some/name", item.line, item.offset) for item in bad] == expected
    assert all(names_the_file(item.file) for item in bad)
    assert all(item.reason for item in bad)
    assert all(len(item.excerpt) <= 1000 for item in bad)


def only_what_is_wanted_is_read(sample: Sample) -> None:
    everything = sample.read()
    for chosen in {offset for offset, _ in everything}:
        found = sample.read(lambda offset, chosen=chosen: offset == chosen)  # type: ignore[misc]
        assert found == [item for item in everything if item[0] == chosen]
    assert sample.read(lambda offset: False) == []


def reading_is_repeatable(sample: Sample) -> None:
    assert sample.read() == sample.read()
    assert sample.measure() == sample.measure()


def text_is_where_the_columns_say(sample: Sample) -> None:
    columns = Columns(text=("a name/of. its own", "text"))
    path = sample.folder / f"named{sample.suffix}"
    expected = sample.member.example(path, sample.texts, columns)
    found = list(make_reader(sample.member).read(path, "name", columns, lambda offset: True))
    texts = [item.text for _, item in found if isinstance(item, Document)]
    assert texts == [text for _, text in expected if text is not None]
    assert make_reader(sample.member).measure(path, columns) >= 0


def text_is_the_first_field_that_is_there(sample: Sample) -> None:
    columns = Columns(text=("text", "other name"), subset="mine")
    path = sample.folder / f"second{sample.suffix}"
    sample.member.example(path, sample.texts, Columns(text=columns.text[1:]))
    found = list(make_reader(sample.member).read(path, "some/name", columns, lambda offset: True))
    assert [_line_and_text(item) for _, item in found] == [_line_and_text(item) for _, item in sample.read()]
    fields = make_reader(sample.member).text_fields(path, "some/name", columns)
    assert set(fields.values()) <= {"other name"}
    assert all(names_the_file(name) for name in fields)


def end_of_name_may_be_in_upper_case(sample: Sample) -> None:
    expected, path = sample.read(), sample.folder / f"B{sample.suffix.upper()}"
    sample.path.rename(path)
    assert (
        list(make_reader(sample.member).read(path, "some/name", Columns(subset="mine"), lambda _: True))
        == expected
    )
    assert make_reader(sample.member).measure(path, Columns()) >= max(offset for offset, _ in expected)


def other_files_have_no_part_in_it(sample: Sample) -> None:
    folder = sample.folder / "other"
    folder.mkdir()
    other = Sample(sample.member, sample.suffix, folder, sample.texts[::-1])
    expected = sample.read(), other.read()
    reader = make_reader(sample.member)

    def items(of: Sample) -> Iterator[Item]:
        return reader.read(of.path, "some/name", Columns(subset="mine"), lambda offset: True)

    assert (list(items(sample)), list(items(other)), list(items(sample))) == (*expected, expected[0])
    together = list(zip_longest(items(sample), items(other)))
    for found, items_alone in zip(zip(*together, strict=True), expected, strict=True):
        assert [item for item in found if item is not None] == items_alone


def cut_file_is_refused_by_name(sample: Sample) -> None:
    data = sample.path.read_bytes()
    if b"\0" not in data and not sample.suffix.endswith(COMPRESSIONS):
        return  # plain text: nothing tells where it should have ended
    sample.path.write_bytes(data[: len(data) // 2])
    for action in (sample.read, sample.measure):
        with pytest.raises(InputError, match=sample.path.name):
            action()


def memory_is_bounded(sample: Sample) -> None:
    texts = tuple(hashlib.sha256(str(number).encode()).hexdigest() for number in range(MANY))
    many = Sample(sample.member, sample.suffix, sample.folder, texts)
    size = sum(map(len, texts))
    tracemalloc.start()
    try:
        for _ in make_reader(many.member).read(many.path, "name", Columns(), lambda offset: True):
            pass
        many.measure()
        assert tracemalloc.get_traced_memory()[1] < size / 2
    finally:
        tracemalloc.stop()


def names_the_file(found: str) -> bool:
    """Tell whether a name is that under which a file was read, or of a file within it."""
    return found == "some/name" or found.startswith("some/name/")


def _line_and_text(item: Document | BadLine) -> tuple[int, str | None]:
    if isinstance(item, BadLine):
        return item.line, None
    return int(item.id.rpartition(":")[2]), item.text


CHECKS: dict[str, Callable[[Sample], None]] = {
    check.__name__: check
    for check in (
        member_is_described,
        documents_have_their_texts,
        documents_have_name_line_and_subset,
        records_have_their_offsets,
        offsets_lie_on_the_scale,
        bad_records_are_named,
        only_what_is_wanted_is_read,
        reading_is_repeatable,
        text_is_where_the_columns_say,
        text_is_the_first_field_that_is_there,
        end_of_name_may_be_in_upper_case,
        other_files_have_no_part_in_it,
        cut_file_is_refused_by_name,
        memory_is_bounded,
    )
}
