"""Rows of Parquet files as documents. Loads pyarrow, 0.2 s: `reader.py` imports this, when a file is read."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate

import pyarrow as pa
import pyarrow.parquet as pq

from storage.sources.readers.tables import ROWS, OpenTable, Table


class ParquetTable(Table):
    """The rows of one file."""

    @contextmanager
    def open(self) -> Iterator[OpenTable]:
        """Open the file, whose columns are read apart from each other."""
        with pq.ParquetFile(self.path) as file:
            yield file.schema_arrow, lambda names: file.iter_batches(ROWS, columns=names)

    def write(self, texts: Sequence[str | None]) -> list[tuple[int, str | None]]:
        """Write a row per text; return (offset, text) of each."""
        pq.write_table(pa.table({self.columns.text[0]: pa.array(texts, pa.string())}), self.path)
        sizes = [len(text.encode()) if text else 0 for text in texts]
        return list(zip(accumulate(sizes[:-1], initial=0), texts, strict=True))
