"""Arrow and Feather files, and Arrow streams in a file: one document per row of the text column."""

from pathlib import Path
from typing import TYPE_CHECKING

from storage.sources.readers.base import Columns
from storage.sources.readers.table_reader import TableReader

if TYPE_CHECKING:
    from storage.sources.readers.arrow.rows import ArrowTable


class ArrowReader(TableReader):
    """Reads `.arrow` and `.feather`."""

    name = "arrow"
    version = 1
    suffixes = (".arrow", ".feather")

    @staticmethod
    def table(path: Path, columns: Columns) -> "ArrowTable":
        """Return the table in a file."""
        from storage.sources.readers.arrow.rows import ArrowTable  # noqa: PLC0415 - pyarrow: 0.2 s for these files alone

        return ArrowTable(path, columns)
