"""Rows of Parquet files as documents. Loads pyarrow, 0.2 s: `reader.py` imports this, when a file is read."""

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage.errors import InputError
from storage.formats.documents import Document
from storage.sources.readers.base import BadLine, Columns, Item, bad_line
from storage.sources.readers.chunks import damaged
from storage.sources.readers.records import META, SUBSET, document_of

ROWS = 256
"""Rows that are in memory together."""


class ParquetRows:
    """The rows of one file."""

    def __init__(self, path: Path, columns: Columns) -> None:
        self.path = path
        self.columns = columns

    def measure(self) -> int:
        """Return the bytes of the text column. Raises: InputError."""
        batches = _batches(self.path, self.columns, [self.columns.text])
        return sum(pc.sum(pc.binary_length(batch.column(0))).as_py() or 0 for batch in batches)

    def read(self, name: str, wanted: Callable[[int], bool]) -> Iterator[Item]:
        """Yield the wanted rows; the offset of one is the bytes of text before it. Raises: InputError."""
        number, offset = 0, 0
        columns = self.columns
        for batch in _batches(self.path, columns, [columns.text, META, SUBSET]):
            values = {column: batch.column(column) for column in batch.schema.names}
            texts = values.pop(columns.text).cast(pa.large_binary())  # Arrow does not check that text is UTF-8
            for row in range(batch.num_rows):
                number += 1
                data = texts[row].as_py()
                if wanted(offset):
                    record = {column: cells[row].as_py() for column, cells in values.items()}
                    yield offset, _document(data, record, columns, name, number, offset)
                offset += len(data or b"")

    def write(self, texts: Sequence[str | None]) -> list[tuple[int, str | None]]:
        """Write a row per text; return (offset, text) of each."""
        pq.write_table(pa.table({self.columns.text: pa.array(texts, pa.string())}), self.path)
        sizes = [len(text.encode()) if text else 0 for text in texts]
        return list(zip(accumulate(sizes[:-1], initial=0), texts, strict=True))


def _document(
    data: bytes | None, record: dict[str, Any], columns: Columns, name: str, number: int, offset: int
) -> Document | BadLine:
    try:
        text = None if data is None else data.decode()
        # Through JSON, since a column may hold dates or decimals, and a document only what JSON has.
        meta = orjson.loads(orjson.dumps(record.get(META)))
    except (UnicodeDecodeError, TypeError) as error:
        reason = f"not UTF-8: {error}" if isinstance(error, UnicodeDecodeError) else f"field 'meta': {error}"
        return bad_line(name, number, offset, reason, data or b"")
    if record.get(SUBSET) is not None and (meta is None or type(meta) is dict):
        meta = {**(meta or {}), SUBSET: record[SUBSET]}
    found = document_of({columns.text: text, META: meta}, columns, f"{name}:{number}")
    return found if isinstance(found, Document) else bad_line(name, number, offset, found, data or b"")


def _batches(path: Path, columns: Columns, names: list[str]) -> Iterator[Any]:
    """Yield record batches of those of the columns that are there, the text column first."""
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            if columns.text not in schema.names:
                raise InputError(
                    f"{path} must have a text column {columns.text!r}, found {', '.join(schema.names)}; "
                    f"set text_field"
                )
            kind = schema.field(columns.text).type
            if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
                raise InputError(f"column {columns.text!r} of {path} must hold text, found {kind}; set text_field")
            yield from file.iter_batches(ROWS, columns=[name for name in names if name in schema.names])
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk, not the file
        raise damaged(path, str(error)) from error
