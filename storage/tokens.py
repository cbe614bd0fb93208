"""The format of tokens on disk, and the packed sequences that training maps into memory.

A token is a little-endian uint16 while the vocabulary allows it, int32 otherwise. Every document ends with the
token EOT, and EOT stands nowhere else but as padding: that is how readers find the ends of documents.

Packed sequences are Parquet, so any analysis tool reads them. Column 0 (`tokens`) is fixed-length binary without
nulls, dictionary or compression, one page per row group: a page's content is the plain array of tokens
[sequences, sequence_length + 1], and a random read costs what one of a flat file does. Column 1 (`doc_lens`) has
the lengths of the pieces of documents in a sequence; what they leave over is padding. The format stands in the
footer.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from storage.canonical import canonical_json
from storage.errors import DamagedFile, InputError
from storage.records import JsonDict

TOKENIZER, TOKENS, SEQUENCES = "tokenizer", "tokens", "sequences"
"""Roles of the files that hold a tokenizer, a token archive and packed sequences."""

EOT = "<|endoftext|>"
"""The special token at the end of every document."""

PACKED_LAYOUT = "packed-sequences/1"
METADATA_KEY = b"pile-pipeline"

PAGE_BYTES = 1 << 30
"""Limit of a page in Parquet is 2^31 - 1 bytes."""


@dataclass(frozen=True)
class TokenFormat:
    """What the numbers in a token file mean."""

    vocab_size: int
    eot_id: int
    tokenizer_sha256: str

    def __post_init__(self) -> None:
        if not 0 <= self.eot_id < self.vocab_size <= 2**31:
            raise InputError(
                f"a token format needs 0 <= eot_id < vocab_size <= 2^31, found eot_id {self.eot_id} and "
                f"vocab_size {self.vocab_size}; train another tokenizer"
            )

    @property
    def dtype(self) -> np.dtype[Any]:
        """Little-endian uint16 or int32, the narrower that holds every id."""
        return np.dtype("<u2") if self.vocab_size <= 65536 else np.dtype("<i4")


@dataclass(frozen=True)
class PackedFormat:
    """What a file of packed sequences says about itself."""

    tokens: TokenFormat
    sequence_length: int
    """Predictions per sequence; a row has one token more, so that inputs and targets are both in it."""

    @property
    def row_tokens(self) -> int:
        """Tokens stored per sequence."""
        return self.sequence_length + 1

    @property
    def row_bytes(self) -> int:
        """Bytes stored per sequence."""
        return self.row_tokens * self.tokens.dtype.itemsize

    def described(self) -> JsonDict:
        """Return the content of the footer's metadata."""
        token_format = {"dtype": self.tokens.dtype.name, **asdict(self.tokens)}
        return {"layout": PACKED_LAYOUT, "sequence_length": self.sequence_length, **token_format}


class SequenceWriter:
    """Writes packed sequences; a context manager. After an exception the file is incomplete."""

    def __init__(self, path: Path, packed_format: PackedFormat, row_group_sequences: int) -> None:
        if row_group_sequences * packed_format.row_bytes >= PAGE_BYTES:
            raise InputError(
                f"a row group must be smaller than {PAGE_BYTES} bytes, found {row_group_sequences} sequences of "
                f"{packed_format.row_bytes} bytes; lower row_group_sequences"
            )
        self.sequences = 0
        self._path = path
        self._format = packed_format
        lengths = pa.list_(pa.field("element", pa.int32(), nullable=False))
        columns = {"tokens": pa.binary(packed_format.row_bytes), "doc_lens": lengths}
        self._schema = described_schema(columns, packed_format.described())
        self._writer = pq.ParquetWriter(
            path,
            self._schema,
            use_dictionary=False,
            write_statistics=False,
            compression={"tokens": "none", "doc_lens.list.element": "zstd"},
            compression_level={"doc_lens.list.element": 1},
            data_page_version="1.0",
            data_page_size=PAGE_BYTES,
            max_rows_per_page=PAGE_BYTES,
        )
        self._rows = np.empty((row_group_sequences, packed_format.row_tokens), packed_format.tokens.dtype)
        self._doc_lens: list[list[int]] = []

    def write(self, pieces: Sequence[NDArray[Any]]) -> int:
        """Append one sequence made of pieces of documents, filled up with EOT. Returns the tokens of padding."""
        row = self._rows[len(self._doc_lens)]
        used = 0
        for piece in pieces:
            row[used : used + piece.size] = piece
            used += piece.size
        assert used <= row.size, f"pieces of {used} tokens do not fit into {row.size}"
        row[used:] = eot = self._format.tokens.eot_id
        # Without an EOT before it the first padding token would count as a prediction, see loss_mask.
        assert used == row.size or row[used - 1] == eot, "only a row without padding may end inside a document"
        self._doc_lens.append([piece.size for piece in pieces])
        self.sequences += 1
        if len(self._doc_lens) == len(self._rows):
            self._flush()
        return row.size - used

    def info(self) -> JsonDict:
        """Describe the finished file: its format and [offset, bytes] of every row group's tokens."""
        packed_format, places = read_layout(self._path)
        payloads = [[offset, count * packed_format.row_bytes] for offset, count in places]
        return {**packed_format.described(), "row_groups": payloads}

    def _flush(self) -> None:
        count = len(self._doc_lens)
        data = pa.py_buffer(self._rows[:count])
        tokens = pa.FixedSizeBinaryArray.from_buffers(self._schema.field("tokens").type, count, [None, data])
        table = pa.table([tokens, self._doc_lens], schema=self._schema)
        self._writer.write_table(table, row_group_size=count)
        self._doc_lens = []

    def __enter__(self) -> "SequenceWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and self._doc_lens:
            self._flush()
        self._writer.close()


class PackedSequences:
    """The sequences of several files as one array that stays on disk; all have one format."""

    def __init__(self, paths: Sequence[Path]) -> None:
        if not paths:
            raise InputError("packed sequences must come from at least one file, found none; run the stage pack")
        layouts = [read_layout(path) for path in paths]
        self.format = layouts[0][0]
        self._groups: list[NDArray[Any]] = []
        for path, (packed_format, places) in zip(paths, layouts, strict=True):
            if packed_format != self.format:
                raise damaged(path, f"must have the format of {paths[0]}, {self.format}", f"found {packed_format}")
            data = np.memmap(path, np.uint8, "r")
            for offset, count in places:
                # Often at an odd address, which numpy copes with; `rows` copies to an aligned array.
                self._groups.append(np.ndarray((count, self.format.row_tokens), self.dtype, data, offset))
        self._ends = np.cumsum([len(group) for group in self._groups], dtype=np.int64)

    @property
    def sequence_length(self) -> int:
        """Predictions per sequence."""
        return self.format.sequence_length

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of a token: uint16 or int32."""
        return self.format.tokens.dtype

    def __len__(self) -> int:
        return int(self._ends[-1]) if self._groups else 0

    def rows(self, indices: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Return a copy of some sequences, in an aligned array, and which of their predictions count.

        Inputs are `tokens[:, :-1]`, targets `tokens[:, 1:]`.

        Shapes: indices (N,); tokens (N, sequence_length + 1); mask (N, sequence_length).
        Raises: IndexError.
        """
        if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < len(self):
            raise IndexError(f"sequences are numbered from 0 to {len(self) - 1}, found {indices}")
        tokens = np.empty((len(indices), self.format.row_tokens), self.dtype)
        groups = np.searchsorted(self._ends, indices, side="right")
        places = indices - self._ends[groups]  # negative: counted from the end of the row group
        for row, (group, place) in enumerate(zip(groups.tolist(), places.tolist(), strict=True)):
            tokens[row] = self._groups[group][place]
        return tokens, loss_mask(tokens, self.format.tokens.eot_id)


def loss_mask(tokens: NDArray[Any], eot_id: int) -> NDArray[np.bool_]:
    """Tell which predictions of packed sequences count: not those of another document's beginning or of padding.

    What follows EOT in a row is one or the other, since padding is EOT and begins only after a document's end.

    Shapes: tokens (..., T + 1); result (..., T).
    """
    return tokens[..., :-1] != eot_id


def read_layout(path: Path) -> tuple[PackedFormat, list[tuple[int, int]]]:
    """Return the format of a packed file, and where tokens lie: (byte offset, sequences) per row group.

    Raises: DamagedFile if the tokens of a row group are not one plain array at that place.
    """
    with open_described(path) as (file, described), path.open("rb") as raw:
        packed_format = PackedFormat(read_token_format(path, described), described.get("sequence_length", 0))
        if type(packed_format.sequence_length) is not int or packed_format.described() != described:
            raise damaged(path, f"must have the layout {PACKED_LAYOUT}", f"found {described}")
        column = file.schema.column(0)
        if (column.physical_type, column.length) != ("FIXED_LEN_BYTE_ARRAY", packed_format.row_bytes):
            raise damaged(path, f"must have {packed_format.row_bytes} bytes a row", f"found {column.length}")
        places = []
        for number in range(file.metadata.num_row_groups):
            chunk = file.metadata.row_group(number).column(0)
            payload = chunk.num_values * packed_format.row_bytes
            header = chunk.total_compressed_size - payload
            raw.seek(chunk.data_page_offset)
            expected = _page_header(payload)
            plain = chunk.compression == "UNCOMPRESSED" and {*chunk.encodings} <= {"PLAIN", "RLE"}
            if not plain or raw.read(len(expected)) != expected or header < len(expected):
                raise damaged(path, f"must hold row group {number} in one plain page", "found another layout")
            places.append((chunk.data_page_offset + header, chunk.num_values))
        return packed_format, places


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


def described_schema(columns: dict[str, pa.DataType], described: JsonDict) -> pa.Schema:
    """Return a schema without nulls whose metadata says what the numbers mean."""
    required = [pa.field(name, data_type, nullable=False) for name, data_type in columns.items()]
    return pa.schema(required, metadata={METADATA_KEY: canonical_json(described)})


@contextmanager
def open_described(path: Path) -> Iterator[tuple[pq.ParquetFile, JsonDict]]:
    """Open a file with such a schema; gives the file and what it says about itself.

    Raises: DamagedFile, also for what cannot be decoded later.
    """
    try:
        with pq.ParquetFile(path) as file:
            yield file, _described(path, file.metadata.metadata or {})
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # from the disk, not from the decoder
            raise
        raise damaged(path, "must be a Parquet file", f"found something else ({error})") from error


def _described(path: Path, metadata: dict[bytes, bytes]) -> JsonDict:
    try:
        described = json.loads(metadata.get(METADATA_KEY, b""))
    except ValueError:
        described = None
    if not isinstance(described, dict):
        raise damaged(path, f"must have metadata under {METADATA_KEY!r}", f"found {sorted(metadata)}")
    return described


def read_token_format(path: Path, described: JsonDict) -> TokenFormat:
    """Return the token format of a file from its description. Raises: DamagedFile."""
    try:
        return TokenFormat(**{field.name: described[field.name] for field in fields(TokenFormat)})
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(path, "must describe its token format", f"found {described} ({error!r})") from error


def damaged(path: Path, must: str, found: str) -> DamagedFile:
    """Return the error for a token file that is not what it should be."""
    return DamagedFile(f"{path} {must}, {found}; rebuild it with `pile run RECIPE --force`, or restore the file")
