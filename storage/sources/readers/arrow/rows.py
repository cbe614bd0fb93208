"""Rows of Arrow files as documents. Loads pyarrow, 0.2 s: `reader.py` imports this, when a file is read."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import Any

import pyarrow as pa

from storage.errors import InputError
from storage.sources.readers.tables import OpenTable, Table, slices

FILE_MAGIC = b"ARROW1"
FEATHER_1_MAGIC = b"FEA1"
BYTES_OF_TEXT = {
    pa.string(): pa.binary(),
    pa.large_string(): pa.large_binary(),
    pa.string_view(): pa.binary_view(),
}
"""Types of text and of the same bytes without the promise that they are UTF-8."""


class ArrowTable(Table):
    """The rows of one file, or of one stream in a file."""

    @contextmanager
    def open(self) -> Iterator[OpenTable]:
        """Map the file into memory: a record batch may be as large as the file."""
        with self.path.open("rb") as file:
            magic = file.read(len(FILE_MAGIC))
        if magic.startswith(FEATHER_1_MAGIC):
            raise InputError(
                f"{self.path} must be Arrow or Feather of version 2, found version 1; read it with an older "
                f"pyarrow and write it again"
            )
        if not magic:
            raise pa.ArrowInvalid("it is empty")
        with pa.memory_map(str(self.path)) as source:
            if magic == FILE_MAGIC:
                with pa.ipc.open_file(source) as file:
                    batches = (file.get_batch(number) for number in range(file.num_record_batches))
                    yield file.schema, lambda names: slices(_checked(batch, names) for batch in batches)
            else:
                with pa.ipc.open_stream(source) as stream:
                    yield stream.schema, lambda names: slices(_checked(batch, names) for batch in stream)

    def write(self, texts: Sequence[str | None]) -> list[tuple[int, str | None]]:
        """Write a row per text; return (offset, text) of each."""
        table = pa.table({self.columns.text[0]: pa.array(texts, pa.string())})
        with pa.ipc.new_file(self.path, table.schema) as writer:
            writer.write_table(table)
        sizes = [len(text.encode()) if text else 0 for text in texts]
        return list(zip(accumulate(sizes[:-1], initial=0), texts, strict=True))


def _checked(batch: Any, names: list[str]) -> Any:
    """Return those columns of a batch that are needed, their offsets checked: nothing else does that."""
    columns = {}
    for name in names:
        name = name if name in batch.schema.names else name.partition(".")[0]
        column = batch.column(name)
        column.cast(BYTES_OF_TEXT.get(column.type, column.type)).validate(full=True)
        columns[name] = column
    return pa.RecordBatch.from_pydict(columns)
