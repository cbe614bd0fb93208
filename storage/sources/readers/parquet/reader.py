"""Parquet: one document per row of the text column, which may be nested."""

from pathlib import Path
from typing import TYPE_CHECKING

from storage.sources.readers.base import Columns
from storage.sources.readers.table_reader import TableReader

if TYPE_CHECKING:
    from storage.sources.readers.parquet.rows import ParquetTable


class ParquetReader(TableReader):
    """Reads `.parquet`."""

    name = "parquet"
    version = 2  # columns are kept as metadata
    suffixes = (".parquet",)

    @staticmethod
    def table(path: Path, columns: Columns) -> "ParquetTable":
        """Return the table in a file."""
        from storage.sources.readers.parquet.rows import ParquetTable  # noqa: PLC0415 - pyarrow: 0.2 s for Parquet alone

        return ParquetTable(path, columns)
