"""Pack: token archive -> sequences of equal length, for training.

Input   tokens     archives of the documents' tokens (storage.token_archive)
        tokenizer  the one that made them
Output  train-00000 ... val-00000 ...   role `sequences` (storage.tokens), named after the archive; no `test`
Rerun   a finished shard is kept; a half-written one is replaced.

A row holds sequence_length + 1 tokens: inputs are all but the last, targets all but the first. Documents are
placed by best-fit-decreasing: only one that is longer than a row is cut, and rows are full but for a few
tokens. Cutting the concatenated documents instead would cut 44 % of those that fit (2048 tokens, measured).

An EOT leads every document, since that is what a model reads before a text; another one ends it.

With `probe_tokens` two tokens follow each document or piece of at least 64 tokens, with labels for the heads that
read there: a tone, from the beginning of the document's text, and a field, from its collection. Rows then end with
a token of padding, because their last token is a target only and no head could read there.
"""

import logging
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from storage.config import Config
from storage.errors import InputError
from storage.probes import MIN_PROBED_TOKENS, PROBE_TOKENS, add_probes, lead_with_eot
from storage.records import Part, StoredFile
from storage.store import Artifact
from storage.writer import ArtifactWriter
from tasks.build import Build
from tasks.field_labels import FieldName
from tasks.probe_labels import Labeller, label_names, report_labels
from tasks.stage import Stage

if TYPE_CHECKING:
    from storage.token_archive import TokenArchive

log = logging.getLogger(__name__)

SPLITS = ("train", "val")
"""The test split is evaluated document by document and never packed."""

WINDOW_TOKENS = 1 << 25
"""Documents are packed in windows of about 32 million tokens (64 to 128 MB), whatever the size of a shard."""


class PackConfig(Config):
    """How documents become sequences."""

    sequence_length: int = Field(default=2048, ge=8, le=1 << 20)
    """Tokens that the model sees at once, and predictions per sequence."""
    row_group_sequences: int = Field(default=1024, ge=1)
    """Sequences per row group of the files: what a reader of object storage fetches at once."""
    probe_tokens: bool = False
    """End every document of at least 64 tokens with two probe tokens, at which a world model's heads read tone and
    field."""
    field_map: dict[str, FieldName | None] = Field(default_factory=dict)
    """Field of a collection by its name, or null for none; goes before what is known of The Pile's collections."""

    @property
    def row_room(self) -> int:
        """Tokens of a row for documents and their probes."""
        return self.sequence_length if self.probe_tokens else self.sequence_length + 1

    @property
    def longest_piece(self) -> int:
        """Tokens of a document that a row has room for, its probes not counted."""
        return self.row_room - PROBE_TOKENS if self.probe_tokens else self.row_room

    @model_validator(mode="after")
    def _has_room_for_probes(self) -> "PackConfig":
        if self.probe_tokens and self.longest_piece < MIN_PROBED_TOKENS:
            raise ValueError(
                f"sequence_length must be at least {MIN_PROBED_TOKENS + PROBE_TOKENS} with probe_tokens, found "
                f"{self.sequence_length}; raise it"
            )
        if self.field_map and not self.probe_tokens:
            raise ValueError("field_map needs probe_tokens, found them off; set probe_tokens or remove field_map")
        return self

    @model_validator(mode="after")
    def _fits_in_a_page(self) -> "PackConfig":
        if self.row_group_sequences * (self.sequence_length + 1) * 4 >= 1 << 30:
            raise ValueError(
                f"a row group must be smaller than 1 GiB, found {self.row_group_sequences} sequences of "
                f"{self.sequence_length} tokens of up to 4 bytes; lower row_group_sequences"
            )
        return self


def pack_tokens(config: PackConfig, tokens: Artifact, tokenizer: Artifact, *, build: Build) -> Sequence[Part]:
    """Pack every train and val shard, each into a part of the same name.

    Raises: InputError if the archive was made with another tokenizer, or the train split is too short.
    """
    from storage.tokens import TOKENS  # noqa: PLC0415 - pyarrow, not needed to plan
    from tasks.shards import for_each_shard  # noqa: PLC0415 - datatrove, not needed to plan

    shards = [file for split in SPLITS for file in tokens.files(TOKENS, prefix=f"{split}-")]
    names = [file.part for file in shards]
    if not any(name.startswith("train-") for name in names):
        raise InputError(f"{tokens.ref} must have train shards, found none; add sources of the split `train`")
    finished = build.finished_parts(names)
    work = _PackShard(build.writer, config, tokens, tokenizer)
    left = [file for file in shards if file.part not in finished]
    for_each_shard(build, left, work, name=attrgetter("part"))
    committed = build.writer.parts()
    parts = [committed[name] for name in names]
    _report(config, parts, build)
    return parts


@dataclass(frozen=True)
class _PackShard:
    """Packs one archive and commits it, in a worker process."""

    writer: ArtifactWriter
    config: PackConfig
    tokens: Artifact
    tokenizer: Artifact

    def __call__(self, shard: StoredFile) -> None:
        from storage.token_archive import TokenArchive  # noqa: PLC0415 - pyarrow, not needed to plan
        from storage.tokens import SEQUENCES, TOKENIZER, PackedFormat, SequenceWriter  # noqa: PLC0415 - likewise

        config, tokenizer = self.config, self.tokenizer.file(TOKENIZER)
        archive = TokenArchive(self.tokens.open(shard))
        if archive.format.tokenizer_sha256 != tokenizer.sha256:
            raise InputError(
                f"tokens must be made with the tokenizer {tokenizer.sha256:.12}, found {self.tokens.ref} "
                f"made with {archive.format.tokenizer_sha256:.12}; run tokenize with this tokenizer"
            )
        labeller = None
        if config.probe_tokens:
            labeller = Labeller(self.tokenizer.open(tokenizer), archive, config.field_map)
        path = self.writer.scratch() / f"{shard.part}.parquet"
        packed_format = PackedFormat(archive.format, config.sequence_length, labeller.probes if labeller else None)
        counts = Counter(documents=0, documents_cut=0, sequences=0, tokens=0, padding=0)
        with SequenceWriter(path, packed_format, config.row_group_sequences) as writer:
            for lengths, tokens in windows(archive):
                counts["documents"] += lengths.size
                counts["documents_cut"] += int(np.count_nonzero(lengths >= config.longest_piece))
                counts["tokens"] += tokens.size
                for pieces, labels in _rows(config, lengths, tokens, archive.format.eot_id, labeller):
                    counts["sequences"] += 1
                    counts["padding"] += writer.write(pieces, labels)
                    counts.update(label_names(labels))
        split = shard.part.partition("-")[0]
        per_split = {f"{name}.{split}": count for name, count in counts.items()}
        self.writer.commit(shard.part, {SEQUENCES: path}, counts={**counts, **per_split}, info=writer.info())


def _rows(
    config: PackConfig, lengths: NDArray[np.int64], tokens: NDArray[Any], eot_id: int, labeller: Labeller | None
) -> Iterator[tuple[list[NDArray[Any]], list[int]]]:
    """Yield the pieces of documents in each row, and the labels of the probe tokens in them."""
    document_labels = labeller.label(lengths, tokens) if labeller else None
    lengths, tokens = lead_with_eot(lengths, tokens, eot_id)
    piece_lengths, documents = cut_documents(lengths, config.longest_piece)
    if labeller is None or document_labels is None:
        for row in pack_pieces(piece_lengths, config.row_room):
            yield [tokens[start:end] for start, end in row], []
        return
    labels = document_labels[documents]
    piece_lengths, tokens, token_labels = add_probes(piece_lengths, tokens, labels, labeller.probes)
    for row in pack_pieces(piece_lengths, config.row_room):
        probed = [end for start, end in row if end - start > MIN_PROBED_TOKENS]
        row_labels = [label for end in probed for label in token_labels[end - PROBE_TOKENS : end].tolist()]
        yield [tokens[start:end] for start, end in row], row_labels


def windows(archive: "TokenArchive") -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
    """Yield the lengths of consecutive documents and their tokens, WINDOW_TOKENS or a little more at a time."""
    lengths: list[NDArray[np.int64]] = []
    tokens: list[NDArray[Any]] = []
    for group_lengths, group_tokens in archive.row_groups():
        lengths.append(group_lengths)
        tokens.append(group_tokens)
        if sum(group.size for group in tokens) >= WINDOW_TOKENS:
            yield np.concatenate(lengths), np.concatenate(tokens)
            lengths, tokens = [], []
    if lengths:
        yield np.concatenate(lengths), np.concatenate(tokens)


def cut_documents(lengths: NDArray[np.int64], longest: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the lengths of the pieces, at most `longest` tokens each, and the number of each one's document.

    Shapes: lengths (documents,), each at least 1; results (pieces,).
    """
    pieces_of = -(-lengths // longest)
    documents = np.repeat(np.arange(lengths.size), pieces_of)
    piece_of = np.arange(documents.size) - np.repeat(np.cumsum(pieces_of) - pieces_of, pieces_of)
    return np.minimum(lengths[documents] - piece_of * longest, longest), documents


def pack_pieces(lengths: NDArray[np.int64], row_tokens: int) -> Iterator[list[tuple[int, int]]]:
    """Yield rows of at most `row_tokens` tokens: the (start, end) of each piece in the concatenated documents.

    Rows come in the order of their first piece and pieces in that of the documents, so that neither a row's
    number nor a place in it says anything about the length of a document.

    Shapes: lengths (pieces,), each from 1 to `row_tokens`.
    """
    ends = np.cumsum(lengths)
    rows: dict[int, list[tuple[int, int]]] = {}
    places = zip((ends - lengths).tolist(), ends.tolist(), strict=True)
    for row, (start, end) in zip(best_fit_decreasing(lengths, row_tokens), places, strict=True):
        rows.setdefault(row, []).append((start, end))
    yield from rows.values()


def best_fit_decreasing(lengths: NDArray[np.int64], capacity: int) -> list[int]:
    """Return a row for each piece: from long to short, the fullest row with room for it, else a new one.

    Among equally long pieces the first comes first, among equally full rows the last one filled.

    Source: Ding et al., Fewer Truncations Improve Language Modeling, arXiv:2404.10830, section 3.
    """
    row_of = [0] * lengths.size
    free: list[int] = []  # the room left in some row, each value once, ascending
    rows_with: dict[int, list[int]] = {}
    rows = 0
    for piece in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[piece])
        found = bisect_left(free, length)
        if found == len(free):
            row, room = rows, capacity
            rows += 1
        else:
            room = free[found]
            row = rows_with[room].pop()
            if not rows_with[room]:
                del rows_with[room], free[found]
        row_of[piece] = row
        if left := room - length:
            if left not in rows_with:
                rows_with[left] = []
                insort(free, left)
            rows_with[left].append(row)
    return row_of


def _report(config: PackConfig, parts: Sequence[Part], build: Build) -> None:
    counts = {split: _counts(parts, split) for split in SPLITS}
    if counts["train"]["tokens"] <= config.sequence_length:
        raise InputError(
            f"the train split must fill one sequence of {config.sequence_length + 1} tokens, found "
            f"{counts['train']['tokens']}; lower sequence_length or use a larger corpus"
        )
    if not counts["val"]["sequences"]:
        log.warning("the corpus has no val split: training will not report a validation loss")
    row_tokens = config.sequence_length + 1
    rows = [
        {
            "split": split,
            "sequences": count["sequences"],
            "tokens": count["tokens"],
            "padding, %": round(100 * count["padding"] / max(1, count["sequences"] * row_tokens), 3),
            "documents": count["documents"],
            "documents longer than a sequence": count["documents_cut"],
        }
        for split, count in counts.items()
    ]
    build.table(f"Packed sequences of {config.sequence_length} tokens", rows)
    if config.probe_tokens:
        report_labels(counts, build)


def _counts(parts: Sequence[Part], split: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    for part in parts:
        for name, count in part.counts.items():
            if name.endswith(f".{split}"):
                counts[name.removesuffix(f".{split}")] += count
    return counts


STAGE = Stage(
    name="pack",
    version=2,  # 2: an EOT leads every document
    config=PackConfig,
    build=pack_tokens,
    inputs={"tokens": "tokenize", "tokenizer": "train-tokenizer"},
)
