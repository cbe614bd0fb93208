"""Parquet: one document per row, with the text column, and `meta` or `pile_set_name` if they are there."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from storage.sources.readers.base import DEFAULT_COLUMNS, Columns, Item, Reader

if TYPE_CHECKING:
    from storage.sources.readers.parquet.rows import ParquetRows


class ParquetReader(Reader):
    """Reads `.parquet`. Offsets count the bytes of the text column."""

    name = "parquet"
    version = 1
    suffixes = (".parquet",)

    @classmethod
    def example(
        cls, path: Path, texts: Sequence[str], columns: Columns = DEFAULT_COLUMNS
    ) -> list[tuple[int, str | None]]:
        """Write a row per text and, behind the first, one without."""
        return _rows(path, columns).write([*texts[:1], None, *texts[1:]])

    def read(self, path: Path, name: str, columns: Columns, wanted: Callable[[int], bool]) -> Iterator[Item]:
        """Yield what stands in the wanted rows."""
        return _rows(path, columns).read(name, wanted)

    def measure(self, path: Path, columns: Columns) -> int:
        """Return the bytes of the text column."""
        return _rows(path, columns).measure()


def _rows(path: Path, columns: Columns) -> "ParquetRows":
    from storage.sources.readers.parquet.rows import ParquetRows  # noqa: PLC0415 - pyarrow: 0.2 s for Parquet alone

    return ParquetRows(path, columns)
