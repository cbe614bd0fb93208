"""JSON lines: one object per line with the text field, and `meta` with The Pile's `pile_set_name`.

Blank lines hold no document, other fields are not taken.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import orjson

from storage.formats.documents import Document
from storage.sources.readers.base import DEFAULT_COLUMNS, Columns, Item, Reader, not_utf8
from storage.sources.readers.lines import read_records, write_lines
from storage.sources.readers.records import document_of


class JsonLinesReader(Reader):
    """Reads `.jsonl`, plain, zstd and gzip."""

    name = "jsonl"
    version = 1
    suffixes = (".jsonl", ".jsonl.zst", ".jsonl.gz")

    @classmethod
    def example(
        cls, path: Path, texts: Sequence[str], columns: Columns = DEFAULT_COLUMNS
    ) -> list[tuple[int, str | None]]:
        """Write an object per text and, behind the first, one that has none."""
        lines: list[tuple[bytes, str | None]] = [(orjson.dumps({columns.text: text}), text) for text in texts]
        return write_lines(path, [*lines[:1], (b'{"no text": null}', None), *lines[1:]])

    def read(self, path: Path, name: str, columns: Columns, wanted: Callable[[int], bool]) -> Iterator[Item]:
        """Yield what stands in the wanted lines."""
        return read_records(path, name, columns, wanted, _parse)


def _parse(line: bytes, columns: Columns, document_id: str) -> Document | str:
    try:
        return document_of(orjson.loads(line), columns, document_id)
    except orjson.JSONDecodeError as error:
        return not_utf8(line) or f"not JSON: {error}"
