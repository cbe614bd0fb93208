"""Sentence files of the Leipzig Corpora Collection: one document per line `number<TAB>sentence`.

Their lines are shuffled, so each stands for itself.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from storage.formats.documents import Document
from storage.sources.readers.base import DEFAULT_COLUMNS, Columns, Item, Reader, not_utf8
from storage.sources.readers.chunks import with_compressions
from storage.sources.readers.lines import read_records, write_lines


class LeipzigReader(Reader):
    """Reads `-sentences.txt`, plain and compressed."""

    name = "leipzig"
    version = 2  # a byte order mark is no part of the text
    suffixes = with_compressions("-sentences.txt")

    @classmethod
    def example(
        cls, path: Path, texts: Sequence[str], columns: Columns = DEFAULT_COLUMNS
    ) -> list[tuple[int, str | None]]:
        """Write a numbered line per text and, behind the first, one without a number."""
        lines: list[tuple[bytes, str | None]] = [(f"{n}\t{text}".encode(), text) for n, text in enumerate(texts)]
        return write_lines(path, [*lines[:1], (b"no number", None), *lines[1:]])

    def read(self, path: Path, name: str, columns: Columns, wanted: Callable[[int], bool]) -> Iterator[Item]:
        """Yield what stands in the wanted lines."""
        return read_records(path, name, columns, wanted, _parse)


def _parse(line: bytes, columns: Columns, document_id: str) -> Document | str:
    number, _, sentence = line.rstrip(b"\r").partition(b"\t")
    if not number.isdigit() or not sentence:
        return "not a number, a tab and a sentence"
    return not_utf8(line) or Document(document_id, columns.subset, sentence.decode())
