"""Plain text: one document per file, per line, or per block between blank lines, as `columns.text_files` says."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from storage.errors import InputError
from storage.formats.documents import Document
from storage.sources.readers.base import DEFAULT_COLUMNS, BadLine, Columns, Item, Reader, bad_line, not_utf8
from storage.sources.readers.chunks import BOM, text_chunks, with_compressions, write_compressed
from storage.sources.readers.lines import read_lines

MAX_TEXT_BYTES = 1 << 30
"""A larger document is none but a trap for memory."""


class PlainTextReader(Reader):
    """Reads `.txt`, plain and compressed."""

    name = "plain-text"
    version = 2  # a byte order mark is no part of the text
    suffixes = with_compressions(".txt")

    @classmethod
    def example(
        cls, path: Path, texts: Sequence[str], columns: Columns = DEFAULT_COLUMNS
    ) -> list[tuple[int, str | None]]:
        """Write the first text."""
        write_compressed(path, texts[0].encode())
        return [(0, texts[0])]

    def read(self, path: Path, name: str, columns: Columns, wanted: Callable[[int], bool]) -> Iterator[Item]:
        """Yield the documents of the file; the line of one is that in which it begins."""
        match columns.text_files:
            case "line":
                blocks = _lines(path, columns)
            case "paragraph":
                blocks = _paragraphs(path, columns)
            case "document":
                if not wanted(0):
                    return
                blocks = iter([(1, 0, _whole(path, columns))])
        for number, offset, data in blocks:
            if wanted(offset):
                yield offset, _document(name, number, offset, data, columns)


def _document(name: str, number: int, offset: int, data: bytes, columns: Columns) -> Document | BadLine:
    try:
        return Document(f"{name}:{number}", columns.subset, data.decode())
    except UnicodeDecodeError as error:
        begin = data.rfind(b"\n", 0, error.start) + 1
        number += data.count(b"\n", 0, begin)
        return bad_line(name, number, offset + begin, not_utf8(data[begin:]), data[begin:])


def _whole(path: Path, columns: Columns) -> bytes:
    pieces, size = [], 0
    for piece in text_chunks(path, columns.max_window):
        pieces.append(piece)
        size += len(piece)
        _check_size(path, size)
    return b"".join(pieces).removeprefix(BOM)


def _lines(path: Path, columns: Columns) -> Iterator[tuple[int, int, bytes]]:
    for number, offset, line in read_lines(path, columns):
        if line.strip():
            yield number, offset, line.removesuffix(b"\r")


def _paragraphs(path: Path, columns: Columns) -> Iterator[tuple[int, int, bytes]]:
    """Yield the blocks between blank lines, without the end of their last line."""
    block: list[bytes] = []
    first = begin = size = 0
    for number, offset, line in read_lines(path, columns):
        if not line.strip():
            if block:
                yield first, begin, b"\n".join(block).removesuffix(b"\r")
            block, size = [], 0
            continue
        if not block:
            first, begin = number, offset
        block.append(line)
        size += len(line) + 1
        _check_size(path, size)
    if block:
        yield first, begin, b"\n".join(block).removesuffix(b"\r")


def _check_size(path: Path, size: int) -> None:
    if size > MAX_TEXT_BYTES:
        raise InputError(
            f"a document of plain text must have at most {MAX_TEXT_BYTES} bytes, found more in {path}; if it "
            f"holds many, set download.source.text_files to line or paragraph"
        )
