"""What readers of Arrow's kinds of tables share: all but how a file becomes one."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from storage.sources.readers.base import DEFAULT_COLUMNS, Columns, Item, Reader

if TYPE_CHECKING:  # pyarrow takes 0.2 s, which only who reads such a file pays
    from storage.sources.readers.tables import Table


class TableReader(Reader):
    """One document per row of the text column. Offsets count the bytes of that column."""

    @classmethod
    def example(
        cls, path: Path, texts: Sequence[str], columns: Columns = DEFAULT_COLUMNS
    ) -> list[tuple[int, str | None]]:
        """Write a row per text and, behind the first, one without."""
        return cls.table(path, columns).write([*texts[:1], None, *texts[1:]])

    def read(self, path: Path, name: str, columns: Columns, wanted: Callable[[int], bool]) -> Iterator[Item]:
        """Yield what stands in the wanted rows."""
        return self.table(path, columns).read(name, wanted)

    def measure(self, path: Path, columns: Columns) -> int:
        """Return the bytes of the text column."""
        return self.table(path, columns).measure()

    def text_fields(self, path: Path, name: str, columns: Columns) -> dict[str, str]:
        """Look at the names of the columns."""
        return {name: self.table(path, columns).text_field()}

    @staticmethod
    @abstractmethod
    def table(path: Path, columns: Columns) -> "Table":
        """Return the table in a file."""
