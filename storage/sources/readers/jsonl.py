"""JSON lines: one object per line. Blank lines hold no document."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import orjson

from storage.sources.readers.base import DEFAULT_COLUMNS, Columns, Item, Reader
from storage.sources.readers.chunks import BOM, with_compressions
from storage.sources.readers.lines import read_lines, read_records, write_lines
from storage.sources.readers.records import document_of_json, first_text_field

LOOKED_AT = 100
"""Lines at the beginning of a file in which its text field is looked for, to say which it is."""


class JsonLinesReader(Reader):
    """Reads `.jsonl` and `.ndjson`, plain and compressed."""

    name = "jsonl"
    version = 2  # the fields of a record that are kept, and those that do no harm any more, are others
    suffixes = with_compressions(".jsonl", ".ndjson")

    @classmethod
    def example(
        cls, path: Path, texts: Sequence[str], columns: Columns = DEFAULT_COLUMNS
    ) -> list[tuple[int, str | None]]:
        """Write an object per text and, behind the first, one that has none."""
        lines: list[tuple[bytes, str | None]] = [(orjson.dumps({columns.text[0]: text}), text) for text in texts]
        return write_lines(path, [*lines[:1], (b'{"no text": null}', None), *lines[1:]])

    def read(self, path: Path, name: str, columns: Columns, wanted: Callable[[int], bool]) -> Iterator[Item]:
        """Yield what stands in the wanted lines."""
        # No JSON begins with a byte order mark: inside a file it shows where another one was appended.
        return read_records(
            path,
            name,
            columns,
            wanted,
            lambda line, columns, document_id: document_of_json(line.removeprefix(BOM), columns, document_id),
        )

    def text_fields(self, path: Path, name: str, columns: Columns) -> dict[str, str]:
        """Look at the first lines."""
        return first_text_field(
            name, (line.removeprefix(BOM) for _, _, line in islice(read_lines(path, columns), LOOKED_AT)), columns
        )
