"""JSON: an array of objects, one object, objects one after the other, or an object a line."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import orjson

from storage.errors import InputError
from storage.formats.documents import Document
from storage.sources.readers.base import DEFAULT_COLUMNS, Columns, Item, Reader, bad_line
from storage.sources.readers.chunks import BOM, text_chunks, with_compressions, write_compressed
from storage.sources.readers.json_values import Value, split_values
from storage.sources.readers.lines import read_lines
from storage.sources.readers.records import document_of_json, first_text_field
from storage.sources.readers.values import parse_json

LOOKED_AT = 100
"""Records at the beginning of a file in which its text field is looked for, to say which it is."""


class JsonReader(Reader):
    """Reads `.json`, plain and compressed. Offsets count its bytes."""

    name = "json"
    version = 1
    suffixes = with_compressions(".json")

    @classmethod
    def example(
        cls, path: Path, texts: Sequence[str], columns: Columns = DEFAULT_COLUMNS
    ) -> list[tuple[int, str | None]]:
        """Write an array with an object per text and, behind the first, one that has none."""
        values = [(orjson.dumps({columns.text[0]: text}), text) for text in texts]
        records: list[tuple[bytes, str | None]] = [*values[:1], (b'{"no text": null}', None), *values[1:]]
        write_compressed(path, b"[" + b", ".join(data for data, _ in records) + b"]")
        found, offset = [], 1
        for data, text in records:
            found.append((offset, text))
            offset += len(data) + 2
        return found

    def read(self, path: Path, name: str, columns: Columns, wanted: Callable[[int], bool]) -> Iterator[Item]:
        """Yield the wanted records."""
        for number, offset, data in _records(path, columns):
            if data and wanted(offset):
                found = document_of_json(data, columns, f"{name}:{number}")
                yield offset, found if isinstance(found, Document) else bad_line(name, number, offset, found, data)

    def measure(self, path: Path, columns: Columns) -> int:
        """Return the unpacked bytes, having seen that all brackets are closed."""
        size = 0

        def counted() -> Iterator[bytes]:
            nonlocal size
            for chunk in text_chunks(path, columns.max_window):
                size += len(chunk)
                yield chunk

        begin = _first_byte(path, columns)
        if begin == b"[" or (begin and not _is_by_lines(path, columns)):
            for _ in split_values(path, _without_mark(counted()), in_array=begin == b"["):
                pass
            return size
        return super().measure(path, columns)

    def text_fields(self, path: Path, name: str, columns: Columns) -> dict[str, str]:
        """Look at the first records."""
        return first_text_field(name, (data for _, _, data in islice(_records(path, columns), LOOKED_AT)), columns)


def _records(path: Path, columns: Columns) -> Iterator[tuple[int, int, bytes]]:
    """Yield number, offset and bytes of the records; those of a blank line or a missing value are empty."""
    begin = _first_byte(path, columns)
    if not begin:
        return
    if begin == b"{" and _is_by_lines(path, columns):
        for number, offset, line in read_lines(path, columns):
            yield number, offset, line.removeprefix(BOM).strip()
        return
    values: Iterator[Value] = split_values(
        path, _without_mark(text_chunks(path, columns.max_window)), in_array=begin == b"["
    )
    for number, (offset, data) in enumerate(values, start=1):
        yield number, offset, data


def _first_byte(path: Path, columns: Columns) -> bytes:
    """Return the bracket with which a file begins, nothing if it is blank. Raises: InputError."""
    for chunk in _without_mark(text_chunks(path, columns.max_window)):
        if begin := chunk.lstrip():
            if begin[:1] not in (b"[", b"{"):
                raise InputError(
                    f"{path} must begin with [ or {{ as JSON with records does, found {begin[:20]!r}; is it "
                    f"another kind of file?"
                )
            return begin[:1]
    return b""


def _is_by_lines(path: Path, columns: Columns) -> bool:
    """Tell whether one of the first two lines is a whole object; the other one may be a bad line."""
    lines = (line for _, _, line in read_lines(path, columns) if line.strip())
    return any(_is_object(line) for line in islice(lines, 2))


def _is_object(line: bytes) -> bool:
    try:
        return line.startswith(b"{") and type(parse_json(line)) is dict
    except ValueError:
        return False


def _without_mark(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Put spaces in the place of a byte order mark, so that offsets stay those of the file."""
    for chunk in chunks:
        yield chunk.replace(BOM, b"   ", 1) if chunk.startswith(BOM) else chunk
        break
    yield from chunks
