"""What every reader promises (storage/sources/readers/base.py) about bytes that the member did not write itself.

The file of an example is damaged, below its compression and above it. What is wrong may become bad records, or an
InputError that names the file; what is right beside it stays what and where it was.
"""

import random
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from storage.errors import InputError
from storage.formats.documents import Document
from storage.sources.readers.base import BadLine, Item
from storage.sources.readers.chunks import COMPRESSIONS, read_chunks, write_compressed
from tests.conformance.reader_checks import Sample, names_the_file

SEEDS = 60
LONG = 1_000_000
"""Characters of a long record: many formats and libraries have a limit below."""
MARKS = ("kappa", "zinken", "dokument")
"""Texts that share nothing, so that no compression makes one of another."""
OTHER_LINES = (b"", b" \t\r", b"\xff\xfe", b"\0", b"{", b"x" * LONG)
OTHER_KINDS = {
    "png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x01\0" + bytes(range(256)) * 8,
    "zip": b"PK\x03\x04\x14\0\0\0\x08\0" + bytes(range(255, -1, -1)) * 8,
    "utf-16": "text,\n[1, 2]\n{}".encode("utf-16"),
    "html": b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>\n",
    "zeros": bytes(5000),
    "quotes": b'"' * 5000,
    "brackets": b"[" * 5000 + b"\n" + b'{"a":' * 5000,
    "line ends": b"\r\n\r\n\n\r",
    "numbers": b"1e999\n-0\n" + b"9" * 5000,
}


def damaged_content_is_named_or_refused(sample: Sample) -> None:
    content = _content(sample.path)
    for damaged in _damaged(content):
        write_compressed(sample.path, damaged)
        _read_or_refused(sample)


def damaged_compression_is_refused(sample: Sample) -> None:
    if not sample.suffix.endswith(COMPRESSIONS):
        return
    expected, whole = sample.read(), sample.path.read_bytes()
    for damaged in _damaged(whole):
        sample.path.write_bytes(damaged)
        assert _read_or_refused(sample) in (None, expected), "its checksum tells"


def file_of_another_kind_is_named_or_refused(sample: Sample) -> None:
    for content in OTHER_KINDS.values():
        write_compressed(sample.path, content)
        found = _read_or_refused(sample)
        assert not any("\ufffd" in item.text for _, item in found or [] if isinstance(item, Document))
        if sample.suffix.endswith(COMPRESSIONS):
            sample.path.write_bytes(content)
            for action in (sample.read, sample.measure):
                with pytest.raises(InputError, match=sample.path.name):
                    action()


def text_that_is_not_utf8_is_a_bad_record(sample: Sample) -> None:
    marked = Sample(sample.member, sample.suffix, sample.folder, MARKS)
    content, expected = _content(marked.path), marked.read()
    for mark in MARKS:
        if mark.encode() not in content:
            continue  # the format holds fewer texts, or holds them in another way
        write_compressed(marked.path, content.replace(mark.encode(), mark.encode().replace(b"k", b"\xff")))
        found = _read_or_refused(marked)
        if found is None and b"\0" in content:
            continue  # a format that is not text may refuse the file
        assert found is not None, "one bad record must not hide the others"
        assert [offset for offset, _ in found] == [offset for offset, _ in expected]
        for (_, item), (_, before) in zip(found, expected, strict=True):
            if isinstance(before, Document) and before.text == mark:
                assert isinstance(item, BadLine)
                assert f"{item.file}:{item.line}" == before.id
            else:
                assert item == before


def long_records_are_read(sample: Sample) -> None:
    for texts in (("one", "long " * (LONG // 5) + "end", "three"), ("long" * (LONG // 4),)):
        long = Sample(sample.member, sample.suffix, sample.folder, texts)
        found = [item.text for _, item in long.read() if isinstance(item, Document)]
        assert found == [text for _, text in long.expected if text is not None]


def other_lines_are_as_before(sample: Sample) -> None:
    content = _content(sample.path)
    for index, start in _starts_of_lines(sample, content):
        for line in OTHER_LINES:
            write_compressed(sample.path, content[:start] + line + b"\n" + content[start:])
            found = _read_or_refused(sample)
            assert found is not None, "one bad record must not hide the others"
            assert [pair for pair in _documents(found) if pair[0] != index + 1] == [
                (number + (number > index), text)
                for number, (_, text) in enumerate(sample.expected, start=1)
                if text is not None
            ]
            if not line.strip():
                assert index + 1 not in dict(_documents(found)), "a blank line holds nothing"
            later = {offset for offset, _ in sample.expected if offset >= start}
            assert {offset + len(line) + 1 for offset in later} <= {offset for offset, _ in found}


def _content(path: Path) -> bytes:
    return b"".join(read_chunks(path))


def _damaged(content: bytes) -> Iterator[bytes]:
    """Yield the content with flipped bits, cut short, and with something more in it."""
    for seed in range(SEEDS):
        chance = random.Random(seed)
        damaged = bytearray(content)
        for _ in range(chance.randint(1, 8)):
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        yield bytes(damaged)
        at = chance.randrange(len(content) + 1)
        yield content[:at]
        yield content[:at] + chance.randbytes(chance.randint(1, 50)) + content[at:]


def _read_or_refused(sample: Sample) -> list[Item] | None:
    """Read what may be damaged, and check that what comes can be used; None if the file is refused."""
    message = ""
    try:
        found, size = sample.read(), sample.measure()
    except InputError as error:
        message = str(error)
    if message:
        assert sample.path.name in message
        return None
    offsets = [offset for offset, _ in found]
    assert offsets == sorted(offsets)
    assert size >= 0
    bad = [item for _, item in found if isinstance(item, BadLine)]
    assert all(names_the_file(item.file) and len(item.excerpt) <= 1000 for item in bad)
    numbers = [number for number, _ in _documents(found)]
    assert numbers == sorted(set(numbers))
    return found


def _documents(found: list[Item]) -> list[tuple[int, str]]:
    """Return position and text of the documents."""
    documents = [item for _, item in found if isinstance(item, Document)]
    assert all(names_the_file(document.id.rpartition(":")[0]) for document in documents)
    return [(int(document.id.rpartition(":")[2]), document.text) for document in documents]


def _starts_of_lines(sample: Sample, content: bytes) -> list[tuple[int, int]]:
    """Return (index, offset) of the records but the first if each is a line of the file, else nothing."""
    starts = [offset for offset, _ in sample.expected]
    pieces = [content[start:stop] for start, stop in pairwise(starts)]
    is_by_lines = all(piece.endswith(b"\n") and piece.count(b"\n") == 1 for piece in pieces)
    return list(enumerate(starts))[1:] if is_by_lines and b"\0" not in content else []


DAMAGE_CHECKS: dict[str, Callable[[Sample], None]] = {
    check.__name__: check
    for check in (
        damaged_content_is_named_or_refused,
        damaged_compression_is_refused,
        file_of_another_kind_is_named_or_refused,
        text_that_is_not_utf8_is_a_bad_record,
        long_records_are_read,
        other_lines_are_as_before,
    )
}
