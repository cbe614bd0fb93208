"""The token archive: what `tokenize` writes, one row per document, readable by any Parquet tool.

Columns: id, subset, meta (the document's metadata as JSON), n_bytes (UTF-8 of the text) and tokens, the last of
which is EOT. Token columns are split
into byte streams and compressed with zstd-1: about 1.1 to 1.5 bytes a token, whatever the integer's width.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from storage.artifacts.records import JsonDict
from storage.errors import InputError
from storage.formats.parquet import corrupt_file, described_schema, open_described
from storage.formats.tokens import TokenFormat, read_token_format

LAYOUT = "token-archive/2"

NO_META: dict[str, Any] = {}

ROW_GROUP_TOKENS = 1 << 22
"""The archive is written and read in pieces of about 4 million tokens: 16 MB while Parquet decodes them."""


class TokenArchiveWriter:
    """Writes the tokens of one shard's documents; a context manager. After an exception the file is incomplete."""

    def __init__(self, path: Path, token_format: TokenFormat) -> None:
        self.documents = 0
        self.tokens = 0
        self._format = token_format
        token = pa.field("element", pa.from_numpy_dtype(token_format.dtype), nullable=False)
        columns = {
            "id": pa.string(),
            "subset": pa.string(),
            "meta": pa.string(),
            "n_bytes": pa.int64(),
            "tokens": pa.list_(token),
        }
        self._schema = described_schema(columns, _description(token_format))
        self._writer = pq.ParquetWriter(
            path,
            self._schema,
            use_dictionary=["subset"],
            column_encoding={"tokens.list.element": "BYTE_STREAM_SPLIT"},
            compression="zstd",
            compression_level=1,
        )
        self._clear()

    def write(
        self, document_id: str, subset: str, n_bytes: int, ids: Sequence[int], meta: Mapping[str, Any] = NO_META
    ) -> int:
        """Append a document: `n_bytes` of UTF-8 as `ids`, without EOT. Returns how many tokens it has with EOT."""
        document = self._document(document_id, ids)
        self._rows.append((document_id, subset, orjson.dumps(meta).decode(), n_bytes))
        self._pending.append(document)
        self._pending_tokens += document.size
        self.documents += 1
        self.tokens += document.size
        if self._pending_tokens >= ROW_GROUP_TOKENS:
            self._flush()
        return document.size

    def _document(self, document_id: str, ids: Sequence[int]) -> NDArray[Any]:
        eot = self._format.eot_id
        tokens = np.array([*ids, eot], np.int64)
        if tokens.min() < 0 or tokens.max() >= self._format.vocab_size or np.count_nonzero(tokens == eot) != 1:
            raise InputError(
                f"the tokens of a document must be below vocab_size {self._format.vocab_size} and none of them "
                f"the end-of-text id {eot}, found {min(ids)} to {max(ids)} in {document_id!r}; "
                f"this tokenizer cannot be used: train one with the stage train-tokenizer"
            )
        return tokens.astype(self._format.dtype)

    def _flush(self) -> None:
        ends = np.cumsum([0, *(document.size for document in self._pending)])
        if ends[-1] >= 2**31:  # what an Arrow list can address
            raise InputError(f"a document must have fewer than 2^31 tokens, found {self._rows[-1][0]!r}; split it")
        token_type = self._schema.field("tokens").type
        values = pa.array(np.concatenate(self._pending), token_type.value_type)
        lists = pa.ListArray.from_arrays(pa.array(ends, pa.int32()), values, type=token_type)
        ids, subsets, metas, sizes = zip(*self._rows, strict=True)
        table = pa.table([ids, subsets, metas, sizes, lists], schema=self._schema)
        self._writer.write_table(table, row_group_size=len(self._rows))
        self._clear()

    def _clear(self) -> None:
        self._rows: list[tuple[str, str, str, int]] = []
        self._pending: list[NDArray[Any]] = []
        self._pending_tokens = 0

    def __enter__(self) -> "TokenArchiveWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and self._rows:
            self._flush()
        self._writer.close()


class TokenArchive:
    """Reads the archive of one shard."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with open_described(path) as (_, described):
            self.format = read_token_format(path, described)
            if described != _description(self.format):
                raise corrupt_file(path, f"must have the layout {LAYOUT}", f"found {described}")

    def row_groups(self) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
        """Yield the lengths of some documents, each at least 1, and their tokens one after the other.

        Raises: CorruptFileError unless EOT ends every document and stands nowhere else.
        """
        with open_described(self.path) as (file, _):
            for number in range(file.metadata.num_row_groups):
                for lists in file.read_row_group(number, columns=["tokens"]).column("tokens").chunks:
                    yield self._checked(lists)

    def subsets(self) -> tuple[list[str], NDArray[np.int64]]:
        """Return the names of the documents' subsets, and for each document the place of its name in the list.

        Raises: CorruptFileError.
        """
        with open_described(self.path) as (file, _):
            column = file.read(columns=["subset"]).column("subset").combine_chunks().dictionary_encode()
        return column.dictionary.to_pylist(), column.indices.to_numpy().astype(np.int64)

    def _checked(self, lists: pa.ListArray) -> tuple[NDArray[np.int64], NDArray[Any]]:
        offsets = lists.offsets.to_numpy().astype(np.int64)
        tokens = lists.values.to_numpy()[offsets[0] : offsets[-1]]
        ends = np.flatnonzero(tokens == self.format.eot_id) + 1
        if tokens.dtype != self.format.dtype or not np.array_equal(ends, offsets[1:] - offsets[0]):
            raise corrupt_file(
                self.path, "must end every document, and nothing else, with EOT", "found other tokens"
            )
        return np.diff(offsets), tokens


def _description(token_format: TokenFormat) -> JsonDict:
    return {"layout": LAYOUT, "dtype": token_format.dtype.name, **asdict(token_format)}
