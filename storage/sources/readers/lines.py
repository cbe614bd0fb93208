"""Files that hold a record per line: lines of any length with their positions, in bounded memory."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from storage.errors import InputError
from storage.formats.documents import Document
from storage.sources.readers.base import DEFAULT_COLUMNS, Columns, Item, bad_line
from storage.sources.readers.chunks import BOM, text_chunks, write_compressed

MAX_LINE_BYTES = 1 << 30
"""A longer line is no document but a trap for memory."""

Parse = Callable[[bytes, Columns, str], Document | str]
"""From a line and the id of its document to the document, or the reason why the line holds none."""


def read_records(
    path: Path, name: str, columns: Columns, wanted: Callable[[int], bool], parse: Parse
) -> Iterator[Item]:
    """Yield what `parse` makes of every line that is wanted and not blank."""
    for number, offset, line in read_lines(path, columns):
        if wanted(offset) and line and not line.isspace():
            found = parse(line, columns, f"{name}:{number}")
            yield offset, found if isinstance(found, Document) else bad_line(name, number, offset, found, line)


def write_lines(path: Path, lines: Iterable[tuple[bytes, str | None]]) -> list[tuple[int, str | None]]:
    """Write lines with the texts that they stand for; return (offset, text) of each."""
    written: list[bytes] = []
    found = []
    offset = 0
    for line, text in lines:
        found.append((offset, text))
        written.append(line + b"\n")
        offset += len(line) + 1
    write_compressed(path, b"".join(written))
    return found


def read_lines(path: Path, columns: Columns = DEFAULT_COLUMNS) -> Iterator[tuple[int, int, bytes]]:
    """Yield (number from 1, offset, line without its end); the first one without a byte order mark.

    Raises: InputError, also for a file that is not UTF-8 but UTF-16 or UTF-32, and for a line of a gigabyte.
    """
    lines = _lines(path, columns)
    for number, offset, line in lines:
        yield number, offset, line.removeprefix(BOM)
        break
    yield from lines


def _lines(path: Path, columns: Columns) -> Iterator[tuple[int, int, bytes]]:
    """Yield the lines as they are. Pieces of a long line are joined once."""
    number, offset = 1, 0
    pieces: list[bytes] = []
    held = 0
    for chunk in text_chunks(path, columns.max_window):
        first, *others = chunk.split(b"\n")
        pieces.append(first)
        held += len(first)
        if held > MAX_LINE_BYTES:
            raise InputError(
                f"lines must have at most {MAX_LINE_BYTES} bytes, line {number} of {path} is longer; "
                f"is it one JSON object per line?"
            )
        for other in others:
            yield number, offset, b"".join(pieces)
            number += 1
            offset += held + 1
            pieces, held = [other], len(other)
    if held:
        yield number, offset, b"".join(pieces)
