"""Documents on disk: one JSON object per line, compressed with zstd.

A document is `{"id", "subset", "text", "meta"}`. Shards of the same documents have the same bytes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson
import zstandard

from storage.errors import CorruptFileError
from storage.formats.compression import ZstdUnpacker, unpacked

DOCUMENTS = "documents"
"""Role of a shard of documents in every artifact that holds some."""

SPLITS = TRAIN, VAL, TEST = "train", "val", "test"
"""Part names of document shards begin with their split: `train-00000`."""

ZSTD_LEVEL = 3


def shard_prefix(split: str) -> str:
    """Return what the names of a split's shards begin with: `train-00000` is the first one of `train`."""
    return f"{split}-"


@dataclass(frozen=True, slots=True)
class Document:
    """One text with its origin."""

    id: str
    """Where it came from: source file and line, unique in a corpus."""
    subset: str
    """The name of the collection inside the corpus, The Pile's `pile_set_name`."""
    text: str
    meta: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = field(default=(), compare=False)
    """What its reader had to do to it, as names of counts that it adds one to; not stored with it."""


class DocumentWriter:
    """Writes one shard; a context manager. On an exception the file is incomplete and must not be committed."""

    def __init__(self, path: Path) -> None:
        self.documents = 0
        self.text_bytes = 0
        self._file = path.open("wb")
        # One thread and a fixed level: the same documents give the same bytes on every machine.
        self._stream = zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True).stream_writer(self._file)

    def write(self, document: Document) -> None:
        """Append a document."""
        record = {"id": document.id, "subset": document.subset, "text": document.text, "meta": document.meta}
        self._stream.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))
        self.documents += 1
        self.text_bytes += len(document.text.encode())

    def counts(self) -> dict[str, int]:
        """Return `documents` and `text_bytes` (UTF-8) for the part record."""
        return {"documents": self.documents, "text_bytes": self.text_bytes}

    def __enter__(self) -> "DocumentWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._stream.close()  # type: ignore[no-untyped-call] # zstandard's stubs leave it untyped
        finally:
            self._file.close()


def read_documents(path: Path) -> Iterator[Document]:
    """Yield the documents of a shard that this project wrote.

    Raises: CorruptFileError at the first line that is not a document; a shard is never read in part.
    """
    line_number = 0
    try:
        for line in read_zstd_lines(path):
            record = orjson.loads(line)
            yield Document(record["id"], record["subset"], record["text"], record["meta"])
            line_number += 1
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptFileError(
            f"{path} must hold one document per line, but line {line_number + 1} cannot be read ({error}); "
            f"run `pile verify` to see what else is damaged"
        ) from error


def read_zstd_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a zstd file, all its frames, without the line end.

    Raises: ValueError if the file is damaged or ends inside a frame.
    """
    rest = b""
    for chunk in unpacked(path, ZstdUnpacker):
        lines = (rest + chunk).split(b"\n")
        rest = lines.pop()
        yield from lines
    if rest:
        yield rest
