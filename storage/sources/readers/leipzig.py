"""Sentence files of the Leipzig Corpora Collection: one document per line `number<TAB>sentence`.

Their lines are shuffled, so each stands for itself.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from storage.formats.documents import Document
from storage.sources.readers.base import Columns, Item, Reader, not_utf8
from storage.sources.readers.lines import read_records


class LeipzigReader(Reader):
    """Reads `-sentences.txt`."""

    name = "leipzig"
    version = 1
    suffixes = ("-sentences.txt",)

    def read(self, path: Path, name: str, columns: Columns, wanted: Callable[[int], bool]) -> Iterator[Item]:
        """Yield what stands in the wanted lines."""
        return read_records(path, name, columns, wanted, _parse)


def _parse(line: bytes, columns: Columns, document_id: str) -> Document | str:
    number, _, sentence = line.rstrip(b"\r").partition(b"\t")
    if not number.isdigit() or not sentence:
        return "not a number, a tab and a sentence"
    return not_utf8(line) or Document(document_id, columns.subset, sentence.decode())
