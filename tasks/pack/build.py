"""The work of the pack stage: read an archive in windows, cut, label and place its documents, write rows."""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.artifacts.records import Part, StoredFile
from storage.artifacts.store import Artifact
from storage.artifacts.writer import ArtifactWriter
from storage.errors import InputError
from storage.formats.documents import TRAIN, VAL, shard_prefix
from storage.formats.packed import PackedFormat, SequenceWriter
from storage.formats.probes import MIN_PROBED_TOKENS, PROBE_TOKENS, add_probes, lead_with_eot
from storage.formats.token_archive import TokenArchive
from storage.formats.tokens import SEQUENCES, TOKENIZER, TOKENS
from tasks.core.context import StageContext
from tasks.executors.local import for_each_shard
from tasks.labels.probes import Labeller, label_names, report_labels
from tasks.pack.config import PackConfig
from tasks.pack.packing import cut_documents, pack_pieces

log = logging.getLogger(__name__)

PACKED_SPLITS = (TRAIN, VAL)
"""The test split is evaluated document by document and never packed."""

WINDOW_TOKENS = 1 << 25
"""Documents are packed in windows of about 32 million tokens (64 to 128 MB), whatever the size of a shard."""


def pack_tokens(
    config: PackConfig, tokens: Artifact, tokenizer: Artifact, *, context: StageContext
) -> Sequence[Part]:
    """Pack every train and val shard, each into a part of the same name.

    Raises: InputError if the archive was made with another tokenizer, or the train split is too short.
    """

    shards = [file for split in PACKED_SPLITS for file in tokens.files(TOKENS, prefix=shard_prefix(split))]
    names = [file.part for file in shards]
    if not any(name.startswith(shard_prefix(TRAIN)) for name in names):
        raise InputError(f"{tokens.ref} must have train shards, found none; add sources of the split `train`")
    finished = context.finished_parts(names)
    work = _PackShard(context.writer, config, tokens, tokenizer)
    left = [file for file in shards if file.part not in finished]
    for_each_shard(context, left, work, name=attrgetter("part"))
    committed = context.writer.parts()
    parts = [committed[name] for name in names]
    _report(config, parts, context)
    return parts


@dataclass(frozen=True)
class _PackShard:
    """Packs one archive and commits it, in a worker process."""

    writer: ArtifactWriter
    config: PackConfig
    tokens: Artifact
    tokenizer: Artifact

    def __call__(self, shard: StoredFile) -> None:

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


def _report(config: PackConfig, parts: Sequence[Part], context: StageContext) -> None:
    counts = {split: _counts(parts, split) for split in PACKED_SPLITS}
    if counts[TRAIN]["tokens"] <= config.sequence_length:
        raise InputError(
            f"the train split must fill one sequence of {config.sequence_length + 1} tokens, found "
            f"{counts[TRAIN]['tokens']}; lower sequence_length or use a larger corpus"
        )
    if not counts[VAL]["sequences"]:
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
    context.table(f"Packed sequences of {config.sequence_length} tokens", rows)
    if config.probe_tokens:
        report_labels(counts, context)


def _counts(parts: Sequence[Part], split: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    for part in parts:
        for name, count in part.counts.items():
            if name.endswith(f".{split}"):
                counts[name.removesuffix(f".{split}")] += count
    return counts
