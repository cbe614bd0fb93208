"""Signature files: Parquet, a row per document of a shard, in the order of the documents.

index       uint32                       place of the document in its shard
exact_hash  FIXED_LEN_BYTE_ARRAY(16)     tasks.filter.exact.exact_hash
minhash     FIXED_LEN_BYTE_ARRAY(8 * k)  k little-endian 64-bit hashes; null: too short, or not wanted
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from storage.errors import CorruptFileError
from storage.formats.minhash import Hashes, MinHash

SIGNATURES = "signatures"
"""Role of the signature files in a filter artifact."""

LAYOUT = b"minhash"
"""Key in the schema metadata under which a file says how its signatures were made."""

ROWS = 16_384
"""Rows of a row group: 15 MB of 14 x 8 signatures."""


@dataclass(frozen=True)
class SignatureRows:
    """Some rows of a signature file."""

    exact: npt.NDArray[np.uint64]
    """Shape (rows, 2)."""
    has_minhash: npt.NDArray[np.bool_]
    """Shape (rows,)."""
    minhash: Hashes
    """Shape (rows with a signature, k)."""


class SignatureWriter:
    """Writes the signatures of one shard; a context manager."""

    def __init__(self, path: Path, layout: MinHash) -> None:
        fields = [
            pa.field("index", pa.uint32(), nullable=False),
            pa.field("exact_hash", pa.binary(16), nullable=False),
            pa.field("minhash", pa.binary(8 * layout.hashes), nullable=True),
        ]
        self._schema = pa.schema(fields, metadata={LAYOUT: layout.model_dump_json().encode()})
        # Hashes do not compress, and no two are alike.
        self._writer = pq.ParquetWriter(
            path, self._schema, compression="none", use_dictionary=False, write_statistics=False
        )
        self._rows = 0
        self._exact: list[bytes] = []
        self._minhash: list[bytes | None] = []

    def write(self, exact: bytes, signature: Hashes | None) -> None:
        """Append the row of the next document."""
        self._exact.append(exact)
        self._minhash.append(None if signature is None else signature.astype("<u8").tobytes())
        if len(self._exact) == ROWS:
            self._flush()

    def _flush(self) -> None:
        index = range(self._rows, self._rows + len(self._exact))
        columns = [
            pa.array(values, field.type)
            for values, field in zip((index, self._exact, self._minhash), self._schema, strict=True)
        ]
        self._writer.write_table(pa.table(columns, schema=self._schema))
        self._rows += len(self._exact)
        self._exact, self._minhash = [], []

    def __enter__(self) -> "SignatureWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and (self._exact or not self._rows):
            self._flush()
        self._writer.close()


def read_layout(path: Path) -> tuple[MinHash, int]:
    """Return how the signatures of a file were made, and its number of rows. Raises: CorruptFileError."""
    try:
        metadata = pq.read_metadata(path)
        return MinHash.model_validate_json((metadata.metadata or {})[LAYOUT]), metadata.num_rows
    except (pa.ArrowException, OSError, KeyError, ValidationError) as error:
        raise CorruptFileError(
            f"{path} must be a signature file that names its MinHash layout, but {error!r:.200}; "
            f"rebuild it with `pile run RECIPE --force filter`"
        ) from error


def read_signatures(path: Path) -> Iterator[SignatureRows]:
    """Yield the rows of a file, a row group at a time."""
    file = pq.ParquetFile(path)
    for group in range(file.num_row_groups):
        table = file.read_row_group(group, columns=["exact_hash", "minhash"])
        minhash = table.column("minhash").combine_chunks()
        yield SignatureRows(
            exact=_as_numbers(table.column("exact_hash").combine_chunks()),
            has_minhash=minhash.is_valid().to_numpy(zero_copy_only=False),
            minhash=_as_numbers(minhash.drop_null()),
        )


def _as_numbers(column: pa.FixedSizeBinaryArray) -> npt.NDArray[np.uint64]:
    width = column.type.byte_width // 8
    start = column.offset * width
    values = np.frombuffer(column.buffers()[1] or b"", "<u8")[start : start + len(column) * width]
    return values.reshape(len(column), width)
