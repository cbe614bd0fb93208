"""Shingle files: Parquet, a row per document of a shard, in the order of the documents.

id               string                    of the document
subset           string
exact_hash       FIXED_LEN_BYTE_ARRAY(16)  tasks.filter.exact.exact_hash
near_duplicates  bool                      whether the policy of the subset looks for near duplicates
shingles         list<uint32>              hashes of all runs of so many normalised words, ascending, distinct

They say all that dedup asks about a document, so that nobody reads the text for it again.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from storage.errors import CorruptFileError
from storage.formats.shingling import Shingles

SHINGLES = "shingles"
"""Role of the shingle files in a filter artifact."""

LAYOUT = b"shingles"
"""Key in the schema metadata under which a file says how its shingles were made."""

GROUP = 4_000_000
"""Shingles of a row group: 16 MB in memory."""

Hashes32 = npt.NDArray[np.uint32]


@dataclass(frozen=True)
class ShingleRows:
    """The rows of a row group."""

    exact: npt.NDArray[np.uint64]
    """Shape (rows, 2)."""
    near: npt.NDArray[np.bool_]
    ends: npt.NDArray[np.int64]
    """Where the shingles of each row end in `shingles`, after a leading 0; shape (rows + 1,)."""
    shingles: Hashes32

    def __len__(self) -> int:
        return len(self.near)


SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("subset", pa.string(), nullable=False),
        pa.field("exact_hash", pa.binary(16), nullable=False),
        pa.field("near_duplicates", pa.bool_(), nullable=False),
        pa.field("shingles", pa.list_(pa.field("element", pa.uint32(), nullable=False)), nullable=False),
    ]
)


class ShingleWriter:
    """Writes the shingles of one shard; a context manager."""

    def __init__(self, path: Path, layout: Shingles) -> None:
        self._schema = SCHEMA.with_metadata({LAYOUT: layout.model_dump_json().encode()})
        # A thousand ascending hashes are 22 bits apart: their differences take a third less room than they do, and
        # do not compress.
        self._writer = pq.ParquetWriter(
            path,
            self._schema,
            compression={"id": "zstd", "subset": "zstd", "shingles.list.element": "none", "exact_hash": "none"},
            use_dictionary=["subset"],
            column_encoding={"shingles.list.element": "DELTA_BINARY_PACKED"},
            write_statistics=False,
        )
        self._rows: list[tuple[str, str, bytes, bool]] = []
        self._shingles: list[Hashes32] = []
        self._size = 0
        self._is_empty = True

    def write(self, name: str, subset: str, exact: bytes, near: bool, shingles: Hashes32) -> None:
        """Append the row of the next document; `shingles` are ascending and distinct."""
        self._rows.append((name, subset, exact, near))
        self._shingles.append(shingles)
        self._size += len(shingles) + 1
        if self._size >= GROUP:
            self._flush()

    def _flush(self) -> None:
        columns: list[Any] = [list(column) for column in zip(*self._rows, strict=True)] or [[]] * 4
        ends = np.zeros(len(self._shingles) + 1, np.int32)
        np.cumsum([len(shingles) for shingles in self._shingles], out=ends[1:])
        values = np.concatenate([*self._shingles, np.empty(0, np.uint32)])
        arrays = [pa.array(column, field.type) for column, field in zip(columns, self._schema, strict=False)]
        arrays.append(pa.ListArray.from_arrays(ends, values, type=self._schema.field("shingles").type))
        self._writer.write_table(pa.table(arrays, schema=self._schema))
        self._rows, self._shingles, self._size, self._is_empty = [], [], 0, False

    def __enter__(self) -> "ShingleWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and (self._rows or self._is_empty):
            self._flush()
        self._writer.close()


def read_layout(path: Path) -> tuple[Shingles, int]:
    """Return how the shingles of a file were made, and its number of rows. Raises: CorruptFileError."""
    try:
        metadata = pq.read_metadata(path)
        return Shingles.model_validate_json((metadata.metadata or {})[LAYOUT]), metadata.num_rows
    except (pa.ArrowException, OSError, KeyError, ValidationError) as error:
        raise CorruptFileError(
            f"{path} must be a shingle file that says how its shingles were made, but {error!r:.200}; "
            f"rebuild it with `pile run RECIPE --force filter`"
        ) from error


def read_shingles(path: Path) -> Iterator[ShingleRows]:
    """Yield the rows of a file, a row group at a time."""
    file = pq.ParquetFile(path)
    for group in range(file.num_row_groups):
        table = file.read_row_group(group, columns=["exact_hash", "near_duplicates", "shingles"])
        lists = table.column("shingles").combine_chunks()
        ends = lists.offsets.to_numpy().astype(np.int64)
        exact = table.column("exact_hash").combine_chunks()
        yield ShingleRows(
            exact=np.frombuffer(b"".join(exact.to_pylist()), "<u8").reshape(-1, 2),
            near=table.column("near_duplicates").to_numpy(),
            ends=ends - ends[0],
            shingles=lists.values.to_numpy()[ends[0] : ends[-1]],
        )
