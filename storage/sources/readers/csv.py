"""Tables as text: a line of names, then a row per document. Quoted fields may hold line ends."""

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from storage.errors import InputError
from storage.formats.documents import Document
from storage.sources.readers.base import DEFAULT_COLUMNS, BadLine, Columns, Item, Reader, bad_line, not_utf8
from storage.sources.readers.chunks import with_compressions, write_compressed
from storage.sources.readers.lines import MAX_LINE_BYTES, read_lines
from storage.sources.readers.records import document_of

DELIMITERS = ",;\t|"
"""What separates fields: the first of these with which the line of names has the field of the text."""
NOT_UTF8 = re.compile("[\udc80-\udcff]")
"""Bytes that are not UTF-8, while they are text."""
TAB = "\t"
UNFINISHED = "unexpected end of data"
"""What the library says of a quote that never closes."""


class CsvReader(Reader):
    """Reads `.csv` and `.tsv`, plain and compressed. The line of names is no record; offsets count bytes."""

    name = "csv"
    version = 1
    suffixes = with_compressions(".csv", ".tsv")

    @classmethod
    def example(
        cls, path: Path, texts: Sequence[str], columns: Columns = DEFAULT_COLUMNS
    ) -> list[tuple[int, str | None]]:
        """Write a row per text and, behind the first, one of too many fields."""
        rows: list[tuple[bytes, str | None]] = [(_quoted(text), text) for text in texts]
        rows.insert(1, (_delimiters(path)[0].encode() * 2, None))
        lines = [_quoted(columns.text[0]), *(row for row, _ in rows)]
        write_compressed(path, b"".join(line + b"\n" for line in lines))
        offset, found = len(lines[0]) + 1, []
        for row, text in rows:
            found.append((offset, text))
            offset += len(row) + 1
        return found

    def read(self, path: Path, name: str, columns: Columns, wanted: Callable[[int], bool]) -> Iterator[Item]:
        """Yield the wanted rows."""
        table = _Table(path, columns)
        header = table.header()
        for number, row in enumerate(table.rows(), start=1):
            if not row.is_blank and wanted(row.offset):
                yield row.offset, _document(row, header, columns, name, number)

    def measure(self, path: Path, columns: Columns) -> int:
        """Return the unpacked bytes, having looked at the names."""
        _Table(path, columns).header()
        return super().measure(path, columns)

    def text_fields(self, path: Path, name: str, columns: Columns) -> dict[str, str]:
        """Look at the names."""
        header = _Table(path, columns).header()
        return {name: next(field for field in columns.text if field in header)} if header else {}


@dataclass
class _Row:
    """A row of a table, and the lines that it was made of."""

    offset: int
    fields: list[str] = field(default_factory=list)
    error: str = ""
    begin: bytes = b""
    """Its first line."""

    @property
    def is_blank(self) -> bool:
        return len(self.fields) <= 1 and not self.begin.strip()


class _Table:
    """The rows of one file, whose lines are counted as the library takes them."""

    def __init__(self, path: Path, columns: Columns) -> None:
        self.path = path
        self.columns = columns
        self._lines = read_lines(path, columns)
        self._taken: list[tuple[int, int, bytes]] = []
        self._delimiter = ","

    def header(self) -> list[str]:
        """Return the names of the columns, none for an empty file. Raises: InputError without one for the text."""
        csv.field_size_limit(MAX_LINE_BYTES)
        found: list[list[str]] = []
        for delimiter in _delimiters(self.path):
            lines = self._text_lines(read_lines(self.path, self.columns))
            try:
                names = next(filter(None, csv.reader(lines, delimiter=delimiter, strict=True)), [])
            except csv.Error:
                continue
            if any(name in names for name in self.columns.text):
                self._check_once(names)
                self._delimiter = delimiter
                next(row for row in self.rows() if row.fields)
                return names
            found.append(names)
        if found and not any(found):
            return []
        wanted = " or ".join(map(repr, self.columns.text))
        names = max(found, key=len, default=[])
        raise InputError(
            f"{self.path} must have the names of its columns in its first line, {wanted} for the text among them, "
            f"found {', '.join(map(repr, names))[:300] or 'no line of a table'}; name the column of the text in "
            f"download.source.text_field"
        )

    def rows(self) -> Iterator[_Row]:
        """Yield the rows that are left. Raises: InputError for a quote that never closes."""
        rows = csv.reader(self._text_lines(self._lines), delimiter=self._delimiter, strict=True)
        while True:
            self._taken.clear()
            row = _Row(0)
            try:
                row.fields = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                row.error = str(error)
            if not self._taken:
                return
            number, row.offset, row.begin = self._taken[0]
            if UNFINISHED in row.error or "field limit" in row.error:
                raise InputError(
                    f"{self.path} must close every quote, the row that begins in line {number} (byte "
                    f"{row.offset}) never ends; correct it, or write quotes inside a field twice"
                )
            yield row

    def _check_once(self, header: list[str]) -> None:
        for name in self.columns.text:
            if header.count(name) > 1:
                raise InputError(f"{self.path} must name each column once, found {name!r} twice; rename one")

    def _text_lines(self, lines: Iterator[tuple[int, int, bytes]]) -> Iterator[str]:
        for number, offset, line in lines:
            if not self._taken:
                self._taken.append((number, offset, line))
            yield line.decode("utf-8", "surrogateescape") + "\n"


def _document(row: _Row, header: list[str], columns: Columns, name: str, number: int) -> Document | BadLine:
    found: Document | str
    if row.error:
        found = f"not a row of a table: {row.error}"
    elif any(not text.isascii() and NOT_UTF8.search(text) for text in row.fields):
        data = "\n".join(row.fields).encode("utf-8", "surrogateescape")
        return bad_line(name, number, row.offset, not_utf8(data), data)
    elif len(row.fields) != len(header):
        found = f"a row of {len(row.fields)} fields under {len(header)} names"
    else:
        record = {
            name: text for name, text in zip(header, row.fields, strict=True) if text or name in columns.text
        }
        found = document_of(record, columns, f"{name}:{number}")
    return found if isinstance(found, Document) else bad_line(name, number, row.offset, found, row.begin)


def _delimiters(path: Path) -> str:
    return TAB if ".tsv" in path.name.lower() else DELIMITERS


def _quoted(text: str) -> bytes:
    return b'"' + text.replace('"', '""').encode() + b'"'
