"""The format of tokens on disk, and the packed sequences that training maps into memory.

A token is a little-endian uint16 while the vocabulary allows it, int32 otherwise. Every document ends with the
token EOT, and EOT stands nowhere else but as padding: that is how readers find the ends of documents.

Packed sequences are Parquet, so any analysis tool reads them. Column 0 (`tokens`) is fixed-length binary without
nulls, dictionary or compression, one page per row group: a page's content is the plain array of tokens
[sequences, sequence_length + 1], and a random read costs what one of a flat file does. Column 1 (`doc_lens`) has
the lengths of the pieces of documents in a sequence, probe tokens included; what they leave over is padding. The
format stands in the footer.

Sequences with probe tokens (storage.formats.probes) have a third column, `labels`: for each probe token of the
row, in order, the number of its class or NO_LABEL.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from storage.artifacts.records import JsonDict
from storage.errors import InputError
from storage.formats.parquet import PAGE_BYTES, corrupt_file, described_schema, open_described, plain_pages
from storage.formats.probes import NO_LABEL, Probes, loss_mask
from storage.formats.tokens import TokenFormat, read_token_format

PACKED_LAYOUT = "packed-sequences/1"


@dataclass(frozen=True)
class PackedFormat:
    """What a file of packed sequences says about itself."""

    tokens: TokenFormat
    sequence_length: int
    """Predictions per sequence; a row has one token more, so that inputs and targets are both in it."""
    probes: Probes | None = None
    """The probe tokens behind the documents, if they have any."""

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
        probes = asdict(self.probes) if self.probes else {}
        return {"layout": PACKED_LAYOUT, "sequence_length": self.sequence_length, **token_format, **probes}


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
        if packed_format.probes:
            columns["labels"] = pa.list_(pa.field("element", pa.int8(), nullable=False))
        compressed = dict.fromkeys((f"{name}.list.element" for name in columns if name != "tokens"), "zstd")
        self._schema = described_schema(columns, packed_format.described())
        self._writer = pq.ParquetWriter(
            path,
            self._schema,
            use_dictionary=False,
            write_statistics=False,
            compression={"tokens": "none", **compressed},
            compression_level=dict.fromkeys(compressed, 1),
            data_page_version="1.0",
            data_page_size=PAGE_BYTES,
            max_rows_per_page=PAGE_BYTES,
        )
        self._rows = np.empty((row_group_sequences, packed_format.row_tokens), packed_format.tokens.dtype)
        self._doc_lens: list[list[int]] = []
        self._labels: list[list[int]] = []

    def write(self, pieces: Sequence[NDArray[Any]], labels: Sequence[int] = ()) -> int:
        """Append one sequence made of pieces of documents, filled up with EOT. Returns the tokens of padding.

        `labels` has a number for each probe token in the pieces, in order.
        """
        row = self._rows[len(self._doc_lens)]
        used = 0
        for piece in pieces:
            row[used : used + piece.size] = piece
            used += piece.size
        assert used <= row.size, f"pieces of {used} tokens do not fit into {row.size}"
        row[used:] = eot = self._format.tokens.eot_id
        probes = self._format.probes
        # Without one of them before it the first padding token would count as a prediction, see loss_mask.
        ends = (eot,) if probes is None else (eot, probes.field_id)
        assert used == row.size or row[used - 1] in ends, "only a row without padding may end inside a document"
        found = np.count_nonzero(probes.find(row)) if probes else 0
        assert len(labels) == found, f"{found} probe tokens must have as many labels, found {len(labels)}"
        self._doc_lens.append([piece.size for piece in pieces])
        self._labels.append(list(labels))
        self.sequences += 1
        if len(self._doc_lens) == len(self._rows):
            self._flush()
        return int(row.size) - used

    def info(self) -> JsonDict:
        """Describe the finished file: its format and [offset, bytes] of every row group's tokens."""
        packed_format, places = read_layout(self._path)
        payloads = [[offset, count * packed_format.row_bytes] for offset, count in places]
        return {**packed_format.described(), "row_groups": payloads}

    def _flush(self) -> None:
        count = len(self._doc_lens)
        data = pa.py_buffer(self._rows[:count])
        tokens = pa.FixedSizeBinaryArray.from_buffers(self._schema.field("tokens").type, count, [None, data])
        lists = [self._doc_lens, self._labels] if self._format.probes else [self._doc_lens]
        table = pa.table([tokens, *lists], schema=self._schema)
        self._writer.write_table(table, row_group_size=count)
        self._doc_lens, self._labels = [], []

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
        self._paths = paths
        self._labels: dict[int, tuple[NDArray[np.int8], NDArray[np.int64]]] = {}
        self._groups: list[NDArray[Any]] = []
        for path, (packed_format, places) in zip(paths, layouts, strict=True):
            if packed_format != self.format:
                raise corrupt_file(
                    path, f"must have the format of {paths[0]}, {self.format}", f"found {packed_format}"
                )
            data = np.memmap(path, np.uint8, "r")
            for offset, count in places:
                # Often at an odd address, which numpy copes with; `rows` copies to an aligned array.
                self._groups.append(np.ndarray((count, self.format.row_tokens), self.dtype, data, offset))
        self._ends = np.cumsum([len(group) for group in self._groups], dtype=np.int64)
        self._file_ends = np.cumsum([sum(count for _, count in places) for _, places in layouts], dtype=np.int64)

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
        return tokens, loss_mask(tokens, self.format.tokens.eot_id, self.format.probes)

    def probe_labels(self, indices: NDArray[np.int64], tokens: NDArray[Any]) -> NDArray[np.int64]:
        """Return the labels at the inputs of some sequences, whose `tokens` are those that `rows` returned.

        NO_LABEL everywhere but at probe tokens with a label. The labels of a file are read once, when first asked
        for: a byte for each probe token.

        Shapes: indices (N,); tokens (N, sequence_length + 1); result (N, sequence_length).
        Raises: CorruptFileError.
        """
        labels = np.full(tokens.shape, NO_LABEL, np.int64)
        if self.format.probes is None:
            return labels[:, :-1]
        found = self.format.probes.find(tokens)
        files = np.searchsorted(self._file_ends, indices, side="right").tolist()
        for row, (file, index) in enumerate(zip(files, indices.tolist(), strict=True)):
            stored, ends = self._labels_of(file)
            place = index - int(self._file_ends[file])  # negative: counted from the end of the file
            mine = stored[ends[place - 1] : ends[place]]
            if mine.size != np.count_nonzero(found[row]):
                raise corrupt_file(
                    self._paths[file],
                    "must have a label for each probe token",
                    f"found {mine.size} for {np.count_nonzero(found[row])} in sequence {index}",
                )
            labels[row, found[row]] = mine
        return labels[:, :-1]

    def count_labels(self, tones: int, fields: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return how often each class of tone and of field is a label; () twice without probe tokens.

        Raises: InputError if a label is none of that many classes.
        """
        if self.format.probes is None:
            return (), ()
        # A tone and a field probe always stand together.
        pairs = np.concatenate([self._labels_of(file)[0] for file in range(len(self._paths))]).reshape(-1, 2)
        counts = []
        for name, labels, classes in zip(("tone", "field"), pairs.T, (tones, fields), strict=True):
            found = np.bincount(labels[labels >= 0], minlength=classes)
            if found.size > classes:
                raise InputError(
                    f"the model must have a class for each {name} label of the packed sequences, found label "
                    f"{found.size - 1} and n_{name}s={classes}; set n_{name}s={found.size} or more"
                )
            counts.append(tuple(found.tolist()))
        return counts[0], counts[1]

    def _labels_of(self, file: int) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
        """Return the labels of a file one after the other, and where those of each row end; the first at 0."""
        if file not in self._labels:
            self._labels[file] = _read_labels(self._paths[file])
        return self._labels[file]


def read_layout(path: Path) -> tuple[PackedFormat, list[tuple[int, int]]]:
    """Return the format of a packed file, and where tokens lie: (byte offset, sequences) per row group.

    Raises: CorruptFileError if the tokens of a row group are not one plain array at that place.
    """
    with open_described(path) as (file, described):
        packed_format = _read_packed_format(path, described)
        if type(packed_format.sequence_length) is not int or packed_format.described() != described:
            raise corrupt_file(path, f"must have the layout {PACKED_LAYOUT}", f"found {described}")
        return packed_format, plain_pages(path, file, packed_format.row_bytes)


def _read_packed_format(path: Path, described: JsonDict) -> PackedFormat:
    tokens, length = read_token_format(path, described), described.get("sequence_length", 0)
    if "tone_id" not in described:
        return PackedFormat(tokens, length)
    probes = Probes(described["tone_id"], described.get("field_id", -1))
    special = {tokens.eot_id, probes.tone_id, probes.field_id}
    if not (len(special) == 3 and all(type(token) is int and 0 <= token < tokens.vocab_size for token in special)):
        raise corrupt_file(path, "must name its probe tokens", f"found {probes}")
    return PackedFormat(tokens, length, probes)


def _read_labels(path: Path) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
    """Return the labels of all rows of a packed file with probes, and for row -1, 0, 1, ... where they end.

    Shapes: labels (probe tokens,); ends (rows + 1,), the first of them 0.
    Raises: CorruptFileError.
    """
    with open_described(path) as (file, _):
        if "labels" not in file.schema_arrow.names:
            raise corrupt_file(path, "must have a column of labels", f"found {file.schema_arrow.names}")
        lists = file.read(columns=["labels"]).column("labels").combine_chunks()
    labels, offsets = lists.flatten().to_numpy(), lists.offsets.to_numpy().astype(np.int64)
    return labels, offsets - offsets[0]
