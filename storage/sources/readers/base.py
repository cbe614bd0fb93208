"""What a reader of a file format promises, and what all readers share.

A reader is one file in this folder, or of another package, and one line in `registry.py` (or an entry point of
the group `pile_pipeline.readers`). In `tests/conformance/`, `reader_checks.py` and `reader_damage_checks.py`
check each promise on every reader.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from storage.formats.documents import Document
from storage.sources.readers.chunks import MAX_WINDOW_BYTES, uncompressed_bytes

EXCERPT_BYTES = 200
MAX_RECORD_BYTES = 1 << 20
"""What is kept of a bad record: all of it, unless it is longer than a document ever is."""

TextFiles = Literal["document", "line", "paragraph"]


@dataclass(frozen=True)
class Columns:
    """How the files of a source are read: where a record holds what.

    Where a field is named, a dot leads into an object (`meta.url`), unless a field of that very name is there.
    """

    text: tuple[str, ...] = ("text",)
    """Fields that may hold the text; the first that does is taken."""
    subset: str = "unlabelled"
    """Subset of documents whose record names none."""
    subset_fields: tuple[str, ...] = ("meta.pile_set_name", "pile_set_name")
    """Fields that may name the subset; the first that is there does."""
    id: str = "id"
    """Field whose value is kept as `id` of a document's metadata."""
    keep: tuple[str, ...] = ("url", "source")
    """Further fields that are kept as metadata, beside all of `meta`."""
    text_files: TextFiles = "document"
    """What a file of plain text holds: one document, one per line, or one per block between blank lines."""
    max_window: int = MAX_WINDOW_BYTES
    """Most bytes that unpacking a file may hold in memory."""


DEFAULT_COLUMNS = Columns()


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line, row or file that is not a document."""

    file: str
    line: int
    """From 1, the position of the record among all records of the file; blank lines count."""
    offset: int
    """Where it begins, on the scale of `Reader.measure`."""
    reason: str
    """Begins with its kind, in the same words for all of them; what only this one has stands behind a colon."""
    record: bytes
    """What stands there, at most `MAX_RECORD_BYTES` of it."""
    record_bytes: int
    """How much stands there."""

    @property
    def excerpt(self) -> str:
        """Its beginning, for people."""
        return self.record[:EXCERPT_BYTES].decode("utf-8", "backslashreplace")


Item = tuple[int, Document | BadLine]
"""Offset on the scale of `Reader.measure`, and what begins there."""


class Reader(ABC):
    """Bytes -> documents with their positions, bad ones named. A class without arguments.

    - Every record is yielded once, in the order of the file, as a document or as a `BadLine`. No exception for a
      bad one and none left out; only blank lines hold nothing. A record may be long: many megabytes are no error.
    - Nothing is repaired or replaced in silence: where bytes are not UTF-8, the record is a bad one, and its
      neighbours stay what they are. (A binary format that cannot tell records apart any more may refuse the file.)
      What a reader changes or leaves out of a document, it says in its `notes`, which are counted.
    - Only the text and what `columns` names can make a record a bad one, whatever its other fields hold.
    - Whatever stands in a file, the only exception is InputError.
    - The id of a document is `<name>:<line>`, where line is the record's position from 1, or the line of the file;
      of one that stands in a file within, `<name>/<file>:<line>`.
    - Offsets never fall, lie from 0 to `measure(path, columns)`, and the same file gives the same ones every time.
    - Nothing is yielded whose offset is not `wanted`, and leaving some out changes nothing about the others.
    - A file that is seen to be cut short, damaged or of another kind, as every compressed or binary one, is an
      InputError that names it, in `measure` and `read`. Of plain text the lines that hold nothing are bad records.
    - Where records have names for what they hold, the text is the first that is there of what `columns.text`
      names, and nothing else is.
    - The end of a name is the same in upper and lower case.
    - It has no state: what was read before, or is read at the same time, changes nothing.
    - Memory is bounded by a record and a piece of the file, not by the file, unless the file is one document.
    - To import the module of a reader is cheap: what takes longer waits until a file is read.
    """

    name: ClassVar[str]
    """Its name in the registry."""
    version: ClassVar[int]
    """Raised when the same bytes give other documents: part of the key of every artifact made from them."""
    suffixes: ClassVar[tuple[str, ...]]
    """Ends of the names of its files in lower case, with the compression as in `.jsonl.zst`; the longest of all
    readers wins.

    No other reader has one of them."""
    reader_for: "Callable[[str], Reader]"
    """Finds the reader of a file by its name, for files that hold files; the registry sets it."""

    @classmethod
    @abstractmethod
    def example(
        cls, path: Path, texts: Sequence[str], columns: Columns = DEFAULT_COLUMNS
    ) -> list[tuple[int, str | None]]:
        """Write a file with the texts, and a bad record where there can be one; return what must be read from it.

        That is offset and text of each record, None for a bad one. A format of one document takes the first text;
        one whose records have names for what they hold puts the texts where `columns` says first.
        """

    @abstractmethod
    def read(self, path: Path, name: str, columns: Columns, wanted: Callable[[int], bool]) -> Iterator[Item]:
        """Yield everything in the file whose offset is `wanted`, in order. `name` becomes part of document ids.

        Raises: InputError.
        """

    def measure(self, path: Path, columns: Columns) -> int:
        """Return the length of the scale of offsets: the uncompressed bytes, unless a reader says otherwise.

        Raises: InputError.
        """
        return uncompressed_bytes(path, columns.max_window)

    def text_fields(self, path: Path, name: str, columns: Columns) -> dict[str, str]:
        """Return where the text was found, for the log: from `name`, or files within, to the name of a field.

        It looks at the beginning of a file. Empty for a format whose records have no names for what they hold.
        """
        return {}


def bad_line(name: str, number: int, offset: int, reason: str, data: bytes) -> BadLine:
    """Return a bad line with what stands there."""
    return BadLine(name, number, offset, reason, bytes(data[:MAX_RECORD_BYTES]), len(data))


def not_utf8(line: bytes) -> str:
    """Return where the first byte is that cannot be text, '' if all of them can."""
    try:
        line.decode()
    except UnicodeDecodeError as wrong:
        return f"not UTF-8: byte 0x{line[wrong.start]:02x} at position {wrong.start} of the line"
    return ""
