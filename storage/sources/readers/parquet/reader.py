"""Parquet: one document per row of the text column, which may be nested."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from storage.sources.readers.base import DEFAULT_COLUMNS, Columns, Item, Reader

if TYPE_CHECKING:
    from storage.sources.readers.parquet.rows import ParquetTable


class ParquetReader(Reader):
    """Reads `.parquet`. Offsets count the bytes of the text column."""

    name = "parquet"
    version = 2  # columns are kept as metadata
    suffixes = (".parquet",)

    @classmethod
    def example(
        cls, path: Path, texts: Sequence[str], columns: Columns = DEFAULT_COLUMNS
    ) -> list[tuple[int, str | None]]:
        """Write a row per text and, behind the first, one without."""
        return _table(path, columns).write([*texts[:1], None, *texts[1:]])

    def read(self, path: Path, name: str, columns: Columns, wanted: Callable[[int], bool]) -> Iterator[Item]:
        """Yield what stands in the wanted rows."""
        return _table(path, columns).read(name, wanted)

    def measure(self, path: Path, columns: Columns) -> int:
        """Return the bytes of the text column."""
        return _table(path, columns).measure()

    def text_fields(self, path: Path, name: str, columns: Columns) -> dict[str, str]:
        """Look at the names of the columns."""
        return {name: _table(path, columns).text_field()}


def _table(path: Path, columns: Columns) -> "ParquetTable":
    from storage.sources.readers.parquet.rows import ParquetTable  # noqa: PLC0415 - pyarrow: 0.2 s for Parquet alone

    return ParquetTable(path, columns)
