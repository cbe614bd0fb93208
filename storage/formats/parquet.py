"""Parquet files that say what they hold, and columns of which one row group is one plain array on disk.

What a file says about itself stands as JSON in its footer, under METADATA_KEY.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from storage.artifacts.records import JsonDict
from storage.canonical import canonical_json
from storage.errors import CorruptFileError

METADATA_KEY = b"pile-pipeline"

PAGE_BYTES = 1 << 30
"""Limit of a page in Parquet is 2^31 - 1 bytes."""


def described_schema(columns: dict[str, pa.DataType], described: JsonDict) -> pa.Schema:
    """Return a schema without nulls whose metadata says what the numbers mean."""
    required = [pa.field(name, data_type, nullable=False) for name, data_type in columns.items()]
    return pa.schema(required, metadata={METADATA_KEY: canonical_json(described)})


@contextmanager
def open_described(path: Path) -> Iterator[tuple[pq.ParquetFile, JsonDict]]:
    """Open a file with such a schema; gives the file and what it says about itself.

    Raises: CorruptFileError, also for what cannot be decoded later.
    """
    try:
        with pq.ParquetFile(path) as file:
            yield file, _described(path, file.metadata.metadata or {})
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # from the disk, not from the decoder
            raise
        raise corrupt_file(path, "must be a Parquet file", f"found something else ({error})") from error


def plain_pages(path: Path, file: pq.ParquetFile, row_bytes: int) -> list[tuple[int, int]]:
    """Return where the values of column 0, of `row_bytes` each, lie: (byte offset, rows) per row group.

    Raises: CorruptFileError if those of a row group are not one plain array at that place.
    """
    column = file.schema.column(0)
    if (column.physical_type, column.length) != ("FIXED_LEN_BYTE_ARRAY", row_bytes):
        raise corrupt_file(path, f"must have {row_bytes} bytes a row", f"found {column.length}")
    places = []
    with path.open("rb") as raw:
        for number in range(file.metadata.num_row_groups):
            chunk = file.metadata.row_group(number).column(0)
            payload = chunk.num_values * row_bytes
            header = chunk.total_compressed_size - payload
            raw.seek(chunk.data_page_offset)
            expected = _page_header(payload)
            plain = chunk.compression == "UNCOMPRESSED" and {*chunk.encodings} <= {"PLAIN", "RLE"}
            if not plain or raw.read(len(expected)) != expected or header < len(expected):
                raise corrupt_file(path, f"must hold row group {number} in one plain page", "found another layout")
            places.append((chunk.data_page_offset + header, chunk.num_values))
    return places


def corrupt_file(path: Path, must: str, found: str) -> CorruptFileError:
    """Return the error for a token file that is not what it should be."""
    return CorruptFileError(
        f"{path} {must}, {found}; rebuild it with `pile run RECIPE --force`, or restore the file"
    )


def _described(path: Path, metadata: dict[bytes, bytes]) -> JsonDict:
    try:
        described = json.loads(metadata.get(METADATA_KEY, b""))
    except ValueError:
        described = None
    if not isinstance(described, dict):
        raise corrupt_file(path, f"must have metadata under {METADATA_KEY!r}", f"found {sorted(metadata)}")
    return described


def _page_header(payload: int) -> bytes:
    """Return how the header of a data page with `payload` bytes begins, all of it plain values.

    Thrift's compact protocol: three fields of 32-bit integers (0x15), in zigzag and variable length: the type
    (0, a data page of version 1), the size of the page before compression and the size after it.
    """
    size, value = b"", payload * 2
    while value >= 0x80:
        size += bytes([value & 0x7F | 0x80])
        value >>= 7
    size += bytes([value])
    return b"\x15\x00\x15" + size + b"\x15" + size
