"""Tables in Arrow's memory format as documents, one per row. Loads pyarrow, 0.2 s."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from storage.errors import InputError
from storage.formats.documents import Document
from storage.sources.readers.base import BadLine, Columns, Item, bad_line
from storage.sources.readers.chunks import damaged
from storage.sources.readers.records import META, document_of

ROWS = 256
"""Rows that are in memory together."""
SHOWN_COLUMNS = 30

OpenTable = tuple[Any, Callable[[list[str]], Iterator[Any]]]
"""Schema of a table, and what yields its record batches with the columns of these names, or with more."""
FieldPath = tuple[str, ...]


class Table(ABC):
    """The rows of one file."""

    def __init__(self, path: Path, columns: Columns) -> None:
        self.path = path
        self.columns = columns

    @abstractmethod
    def open(self) -> AbstractContextManager[OpenTable]:
        """Open the file. Raises: pa.ArrowException or OSError without `errno` if it is damaged."""

    @abstractmethod
    def write(self, texts: Sequence[str | None]) -> list[tuple[int, str | None]]:
        """Write a row per text; return (offset, text) of each."""

    def text_field(self) -> str:
        """Return the name of the column that holds the text. Raises: InputError."""
        with self._opened() as (schema, _):
            return ".".join(self._text_path(schema))

    def measure(self) -> int:
        """Return the bytes of the text column. Raises: InputError."""
        with self._opened() as (schema, batches):
            path = self._text_path(schema)
            return sum(
                pc.sum(pc.binary_length(_text_of(batch, path))).as_py() or 0 for batch in batches([".".join(path)])
            )

    def read(self, name: str, wanted: Callable[[int], bool]) -> Iterator[Item]:
        """Yield the wanted rows; the offset of one is the bytes of text before it. Raises: InputError."""
        number, offset = 0, 0
        with self._opened() as (schema, batches):
            path = self._text_path(schema)
            others = list(dict.fromkeys(_others(schema, self.columns)))
            for batch in batches([".".join(path), *others]):
                texts = _text_of(batch, path)
                cells = {other: batch.column(other) for other in others}
                for row in range(batch.num_rows):
                    number += 1
                    data = texts[row].as_py()
                    if wanted(offset):
                        record = {other: _value(column, row) for other, column in cells.items()}
                        yield offset, self._document(data, ".".join(path), record, name, number, offset)
                    offset += len(data or b"")

    def _document(
        self, data: bytes | None, field: str, record: dict[str, Any], name: str, number: int, offset: int
    ) -> Document | BadLine:
        try:
            record[field] = None if data is None else data.decode()
        except UnicodeDecodeError as error:
            return bad_line(name, number, offset, f"not UTF-8: {error}", data or b"")
        found = document_of(record, self.columns, f"{name}:{number}")
        return found if isinstance(found, Document) else bad_line(name, number, offset, found, data or b"")

    @contextmanager
    def _opened(self) -> Iterator[OpenTable]:
        try:
            with self.open() as opened:
                yield opened
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the disk, not the file
            raise damaged(self.path, str(error)) from error

    def _text_path(self, schema: Any) -> FieldPath:
        found = [(name, path, kind) for name in self.columns.text for path, kind in _resolved(schema, name)]
        for name, path, kind in found:
            if _is_text(kind):
                if schema.names.count(path[0]) > 1:
                    raise InputError(f"{self.path} must have one column {name!r}, found several; rename one")
                return path
        if found:
            name, _, kind = found[0]
            raise InputError(
                f"column {name!r} of {self.path} must hold text, found {kind}; name another in "
                f"download.source.text_field"
            )
        wanted = " or ".join(map(repr, self.columns.text))
        raise InputError(
            f"{self.path} must have a text column {wanted}, found {', '.join(schema.names[:SHOWN_COLUMNS])}; name "
            f"the column of the text in download.source.text_field"
        )


def _resolved(schema: Any, name: str) -> Iterator[tuple[FieldPath, Any]]:
    """Yield path and type of the column of a name, and of what a dot in it leads to."""
    if name in schema.names:
        yield (name,), schema.field(schema.names.index(name)).type
    first, _, rest = name.partition(".")
    if rest and first in schema.names:
        kind = schema.field(schema.names.index(first)).type
        if pa.types.is_struct(kind):
            for path, inner in _resolved(pa.schema(list(kind)), rest):
                yield (first, *path), inner


def _others(schema: Any, columns: Columns) -> Iterator[str]:
    """Yield the columns that the metadata of a document comes from."""
    for name in (META, columns.id, *columns.keep, *columns.subset_fields):
        for path, _ in _resolved(schema, name):
            if path[0] not in columns.text and schema.names.count(path[0]) == 1:
                yield path[0]


def _is_text(kind: Any) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    tests = (
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_string_view,
        pa.types.is_binary,
        pa.types.is_large_binary,
        pa.types.is_binary_view,
    )
    return any(test(kind) for test in tests)


def _text_of(batch: Any, path: FieldPath) -> Any:
    """Return the text column of a batch as bytes: Arrow does not check that text is UTF-8."""
    values = batch.column(path[0])
    for inner in path[1:]:
        values = pc.struct_field(values, inner)
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    return values.cast(pa.large_binary())


def _value(column: Any, row: int) -> Any:
    """Return a cell as a Python value; one that has none, in words."""
    try:
        return column[row].as_py()
    except (ValueError, OverflowError):
        # Text that is not UTF-8, times that Python cannot hold.
        return f"({column.type} that cannot be read)".encode()


def slices(batches: Iterator[Any]) -> Iterator[Any]:
    """Yield record batches of at most ROWS rows."""
    for batch in batches:
        starts = [*range(0, batch.num_rows, ROWS), batch.num_rows]
        for start, end in pairwise(starts):
            yield batch.slice(start, end - start)
