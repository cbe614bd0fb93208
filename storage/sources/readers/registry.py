"""Read documents from files that others wrote: strictly, with the position of every bad line.

`.jsonl`, `.jsonl.zst`, `.jsonl.gz`  one JSON object per line: the text field, and `meta` with The Pile's
                                     `pile_set_name`; blank lines hold no document, other fields are not taken
`.parquet`                           one document per row: the text column, `meta` or `pile_set_name` if there
`-sentences.txt`                     one document per line `number<TAB>sentence`: the Leipzig Corpora Collection
`.txt`                               one document per file

A bad line is an item of its own, never an exception and never skipped. A file that is cut short or damaged
is an InputError: what can be read of it is not the corpus.
"""

import gzip
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import zstandard

from storage.errors import InputError
from storage.formats.documents import Document, read_zstd_chunks

FORMATS = (".jsonl", ".jsonl.zst", ".jsonl.gz", ".parquet", ".txt")

LEIPZIG = "-sentences.txt"
"""How the sentence files of the Leipzig corpora end; their lines are shuffled, so each stands for itself."""

MAX_LINE_BYTES = 1 << 30
"""A longer line is no document but a trap for memory."""
COMPRESSED_CHUNK_BYTES = 8 << 10
"""zstd expands at most 32,768-fold (128 KiB from a block of 4 bytes): 256 MiB from one piece of 8 KiB."""
CHUNK_BYTES = 1 << 20
EXCERPT_BYTES = 200
PARQUET_ROWS = 256
MAX_SUBSET_LENGTH = 200


@dataclass(frozen=True)
class Fields:
    """Where a record holds what."""

    text: str = "text"
    subset: str = "unlabelled"
    """Subset of documents whose record names none."""


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line, row or file that is not a document."""

    file: str
    line: int
    offset: int
    """Position of its first byte in the uncompressed file (Parquet: bytes of text before the row)."""
    reason: str
    excerpt: str


Item = tuple[int, Document | BadLine]
"""Offset in the uncompressed file, and what stands there."""


def read_source(path: Path, name: str, fields: Fields, wanted: Callable[[int], bool]) -> Iterator[Item]:
    """Yield everything in a file whose offset is `wanted`, in order. `name` becomes part of document ids.

    Raises: InputError if the file is cut short, damaged or has no text column.
    """
    if path.name.endswith(".parquet"):
        yield from _read_parquet(path, name, fields, wanted)
    elif path.name.endswith(LEIPZIG):
        yield from _read_lines(path, name, fields, wanted, _parse_sentence)
    elif path.name.endswith(".txt"):
        yield from _read_text(path, name, fields, wanted)
    else:
        yield from _read_lines(path, name, fields, wanted, _parse_json)


def measure_source(path: Path, fields: Fields) -> int:
    """Return the uncompressed bytes of a file (Parquet: of its text column), the scale of `Item` offsets.

    Raises: InputError if the file is cut short, damaged or has no text column.
    """
    if path.name.endswith(".parquet"):
        return sum(_binary_lengths(batch.column(0)) for batch in _parquet_batches(path, fields, [fields.text]))
    if path.name.endswith((".jsonl", ".txt")):
        return path.stat().st_size
    return sum(len(chunk) for chunk in _chunks(path))


def _read_lines(
    path: Path,
    name: str,
    fields: Fields,
    wanted: Callable[[int], bool],
    parse: Callable[[bytes, Fields, str], Document | str],
) -> Iterator[Item]:
    for number, offset, line in _lines(path):
        if wanted(offset) and line and not line.isspace():
            found = parse(line, fields, f"{name}:{number}")
            yield offset, found if isinstance(found, Document) else _bad(name, number, offset, found, line)


def _parse_json(line: bytes, fields: Fields, document_id: str) -> Document | str:
    """Return the document of a line, or the reason why it holds none."""
    try:
        return _document(orjson.loads(line), fields, document_id)
    except orjson.JSONDecodeError as error:
        return _not_utf8(line) or f"not JSON: {error}"


def _parse_sentence(line: bytes, fields: Fields, document_id: str) -> Document | str:
    number, _, sentence = line.rstrip(b"\r").partition(b"\t")
    if not number.isdigit() or not sentence:
        return "not a number, a tab and a sentence"
    return _not_utf8(line) or Document(document_id, fields.subset, sentence.decode())


def _not_utf8(line: bytes) -> str:
    try:
        line.decode()
    except UnicodeDecodeError as wrong:
        return f"not UTF-8: byte 0x{line[wrong.start]:02x} at position {wrong.start} of the line"
    return ""


def _document(record: Any, fields: Fields, document_id: str) -> Document | str:
    """Return the document that a record holds, or the reason why it holds none."""
    if type(record) is not dict:
        return f"not a JSON object but {type(record).__name__}"
    text = record.get(fields.text)
    if type(text) is not str:
        return f"field {fields.text!r} is {'missing' if text is None else type(text).__name__} instead of text"
    meta = record.get("meta")
    if meta is None:
        meta = {}
    if type(meta) is not dict:
        return f"field 'meta' is {type(meta).__name__} instead of an object"
    subset = meta.pop("pile_set_name", None)
    if subset is None:
        subset = fields.subset
    if type(subset) is not str or not 0 < len(subset) <= MAX_SUBSET_LENGTH:
        return f"field 'meta.pile_set_name' is not a name of 1 to {MAX_SUBSET_LENGTH} characters"
    return Document(document_id, subset, text, meta)


def _bad(name: str, number: int, offset: int, reason: str, data: bytes) -> BadLine:
    return BadLine(name, number, offset, reason, data[:EXCERPT_BYTES].decode("utf-8", "backslashreplace"))


def _lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Yield (number from 1, offset, line without its end). Pieces of a long line are joined once."""
    number, offset = 1, 0
    pieces: list[bytes] = []
    held = 0
    for chunk in _chunks(path):
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


def _chunks(path: Path) -> Iterator[bytes]:
    """Yield the uncompressed bytes in pieces of bounded size."""
    if path.name.endswith((".jsonl", ".txt")):
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk
        return
    if path.stat().st_size == 0:
        raise _damaged(path, "it is empty")
    try:
        if path.name.endswith(".zst"):
            for piece in read_zstd_chunks(path, COMPRESSED_CHUNK_BYTES):
                for start in range(0, len(piece), CHUNK_BYTES):
                    yield piece[start : start + CHUNK_BYTES]
        else:
            with gzip.open(path) as unpacked:
                while chunk := unpacked.read(CHUNK_BYTES):
                    yield chunk
    except (zstandard.ZstdError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise _damaged(path, str(error)) from error


def _damaged(path: Path, reason: str) -> InputError:
    kind = path.name.rpartition(".")[2]
    return InputError(f"{path} must be a complete {kind} file, but {reason}; fetch or make it again")


def _read_text(path: Path, name: str, fields: Fields, wanted: Callable[[int], bool]) -> Iterator[Item]:
    if not wanted(0):
        return
    if path.stat().st_size > MAX_LINE_BYTES:
        raise InputError(f"a text file is one document and must have at most {MAX_LINE_BYTES} bytes: {path}")
    data = path.read_bytes()
    try:
        yield 0, Document(f"{name}:1", fields.subset, data.decode())
    except UnicodeDecodeError as error:
        begin = data.rfind(b"\n", 0, error.start) + 1
        yield 0, _bad(name, data.count(b"\n", 0, begin) + 1, begin, _not_utf8(data[begin:]), data[begin:])


def _read_parquet(path: Path, name: str, fields: Fields, wanted: Callable[[int], bool]) -> Iterator[Item]:
    import pyarrow as pa  # noqa: PLC0415 - 0.2 s that only Parquet sources need

    number, offset = 0, 0
    for batch in _parquet_batches(path, fields, [fields.text, "meta", "pile_set_name"]):
        columns = {column: batch.column(column) for column in batch.schema.names}
        texts = columns.pop(fields.text).cast(pa.large_binary())  # Arrow does not check that text is UTF-8
        for row in range(batch.num_rows):
            number += 1
            data = texts[row].as_py()
            if wanted(offset):
                record = {column: values[row].as_py() for column, values in columns.items()}
                yield offset, _row_document(data, record, fields, name, number, offset)
            offset += len(data or b"")


def _row_document(
    data: bytes | None, record: dict[str, Any], fields: Fields, name: str, number: int, offset: int
) -> Document | BadLine:
    try:
        record[fields.text] = None if data is None else data.decode()
        # Through JSON, since a column may hold dates or decimals, and a document only what JSON has.
        meta = orjson.loads(orjson.dumps(record.get("meta")))
    except (UnicodeDecodeError, TypeError) as error:
        reason = f"not UTF-8: {error}" if isinstance(error, UnicodeDecodeError) else f"field 'meta': {error}"
        return _bad(name, number, offset, reason, data or b"")
    if record.get("pile_set_name") is not None and (meta is None or type(meta) is dict):
        meta = {**(meta or {}), "pile_set_name": record["pile_set_name"]}
    document = _document({fields.text: record[fields.text], "meta": meta}, fields, f"{name}:{number}")
    return document if isinstance(document, Document) else _bad(name, number, offset, document, data or b"")


def _parquet_batches(path: Path, fields: Fields, columns: list[str]) -> Iterator[Any]:
    """Yield record batches of those of the columns that are there, the text column first."""
    import pyarrow as pa  # noqa: PLC0415 - 0.2 s that only Parquet sources need
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            if fields.text not in schema.names:
                raise InputError(
                    f"{path} must have a text column {fields.text!r}, found {', '.join(schema.names)}; "
                    f"set text_field"
                )
            kind = schema.field(fields.text).type
            if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
                raise InputError(f"column {fields.text!r} of {path} must hold text, found {kind}; set text_field")
            yield from file.iter_batches(PARQUET_ROWS, columns=[name for name in columns if name in schema.names])
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk, not the file
        raise _damaged(path, str(error)) from error


def _binary_lengths(texts: Any) -> int:
    import pyarrow.compute as pc  # noqa: PLC0415 - 0.2 s that only Parquet sources need

    return pc.sum(pc.binary_length(texts)).as_py() or 0
