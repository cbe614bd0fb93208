"""Plain text: one document per file."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from storage.errors import InputError
from storage.formats.documents import Document
from storage.sources.readers.base import DEFAULT_COLUMNS, Columns, Item, Reader, bad_line, not_utf8

MAX_TEXT_BYTES = 1 << 30
"""A larger file is not one document but a trap for memory."""


class PlainTextReader(Reader):
    """Reads `.txt`."""

    name = "plain-text"
    version = 1
    suffixes = (".txt",)

    @classmethod
    def example(
        cls, path: Path, texts: Sequence[str], columns: Columns = DEFAULT_COLUMNS
    ) -> list[tuple[int, str | None]]:
        """Write the first text."""
        path.write_text(texts[0], encoding="utf-8")
        return [(0, texts[0])]

    def read(self, path: Path, name: str, columns: Columns, wanted: Callable[[int], bool]) -> Iterator[Item]:
        """Yield the document of the file."""
        if not wanted(0):
            return
        if path.stat().st_size > MAX_TEXT_BYTES:
            raise InputError(f"a text file is one document and must have at most {MAX_TEXT_BYTES} bytes: {path}")
        data = path.read_bytes()
        try:
            yield 0, Document(f"{name}:1", columns.subset, data.decode())
        except UnicodeDecodeError as error:
            begin = data.rfind(b"\n", 0, error.start) + 1
            number = data.count(b"\n", 0, begin) + 1
            yield 0, bad_line(name, number, begin, not_utf8(data[begin:]), data[begin:])
