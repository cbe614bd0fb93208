"""Parquet: one document per row, with the text column, and `meta` or `pile_set_name` if they are there."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from storage.sources.readers.base import Columns, Item, Reader


class ParquetReader(Reader):
    """Reads `.parquet`. Offsets count the bytes of the text column."""

    name = "parquet"
    version = 1
    suffixes = (".parquet",)

    @classmethod
    def example(cls, path: Path, texts: Sequence[str]) -> list[tuple[int, str | None]]:
        """Write a row per text and, behind the first, one without."""
        from storage.sources.readers.parquet import rows  # noqa: PLC0415 - pyarrow: 0.2 s that only Parquet needs

        return rows.write_example(path, [*texts[:1], None, *texts[1:]])

    def read(self, path: Path, name: str, columns: Columns, wanted: Callable[[int], bool]) -> Iterator[Item]:
        """Yield what stands in the wanted rows."""
        from storage.sources.readers.parquet import rows  # noqa: PLC0415 - pyarrow: 0.2 s that only Parquet needs

        return rows.read_rows(path, name, columns, wanted)

    def measure(self, path: Path, columns: Columns) -> int:
        """Return the bytes of the text column."""
        from storage.sources.readers.parquet import rows  # noqa: PLC0415 - pyarrow: 0.2 s that only Parquet needs

        return rows.measure_text(path, columns)
