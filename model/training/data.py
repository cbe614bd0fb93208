"""From packed sequences to the tensors of one step: which rows, for which process, in which order."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.training.batch import Batch
from model.training.config import TrainConfig
from model.training.engines.base import Engine
from model.training.job import TrainingJob
from storage.artifacts.store import Artifact, Store
from storage.errors import CorruptFileError, InputError
from storage.formats.documents import TRAIN, VAL
from storage.formats.packed import PackedSequences
from storage.formats.probes import NO_LABEL, Probes, document_numbers
from storage.formats.tokens import SEQUENCES
from storage.loader.shuffle import batch_indices


@dataclass(frozen=True)
class PackedData:
    """The opened sequences of a training."""

    train: PackedSequences
    validation: PackedSequences | None
    """None if the corpus has no validation split."""
    sequence_length: int
    """Tokens that the model sees at once, T."""
    probes: Probes | None
    """The probe tokens in the sequences, None if they were packed without."""


def open_data(store: Store, job: TrainingJob) -> PackedData:
    """Open the packed sequences of a job.

    Raises: CorruptFileError if they are not those that the job names; InputError if there is nothing to train on.
    """
    artifact = store.find(job.sequences.stage, job.sequences.key)
    if artifact is None or artifact.content_digest != job.sequences_digest:
        found = artifact.content_digest if artifact else "nothing"
        raise CorruptFileError(
            f"{job.sequences.stage}/{job.sequences.key} in {store.url} must hold content "
            f"{job.sequences_digest:.12}, found {found:.12}; run the pack stage again"
        )
    data = open_sequences(artifact)
    if data.train.format.tokens.vocab_size != job.vocab_size:
        raise InputError(
            f"{artifact.ref} must be packed with a tokenizer of {job.vocab_size} tokens, found "
            f"{data.train.format.tokens.vocab_size}; pack again with this tokenizer"
        )
    return data


def open_sequences(artifact: Artifact) -> PackedData:
    """Open the sequences of a pack artifact. Raises: InputError if there is nothing to train on."""
    train, validation = _open_split(artifact, TRAIN), _open_split(artifact, VAL)
    if train is None:
        raise InputError(f"{artifact.ref} must hold sequences to train on, found none; pack a larger corpus")
    return PackedData(train, validation, train.sequence_length, train.format.probes)


def _open_split(artifact: Artifact, split: str) -> PackedSequences | None:
    paths = [artifact.open(file) for file in artifact.files(SEQUENCES, f"{split}-")]
    sequences = PackedSequences(paths) if paths else None
    return sequences if sequences is not None and len(sequences) else None


def step_batches(sequences: PackedSequences, config: TrainConfig, step: int, engine: Engine) -> list[Batch]:
    """Return the micro-batches of this process for the update that completes `step`.

    Nothing is remembered between steps: the rows follow from (seed, step), and a process takes a contiguous
    slice of them, so the global batch is the same for every number of processes.
    """
    rows = batch_indices(step - 1, config.global_batch_size, len(sequences), config.seed)
    share = config.global_batch_size // engine.world
    mine = rows[engine.rank * share : (engine.rank + 1) * share]
    return [
        _batch(sequences, mine[start : start + config.micro_batch_size], config, engine)
        for start in range(0, share, config.micro_batch_size)
    ]


def evaluation_batches(sequences: PackedSequences, config: TrainConfig, engine: Engine) -> Iterator[Batch]:
    """Yield the first sequences of a split, each to one process, as many batches to every process.

    A process for which no sequence is left gets one that counts nothing: ZeRO-3 needs all in every forward pass.
    """
    count = min(config.eval_sequences, len(sequences))
    for start in range(0, count, config.micro_batch_size * engine.world):
        first = start + engine.rank * config.micro_batch_size
        rows = np.arange(first, min(first + config.micro_batch_size, count))
        if len(rows):
            yield _batch(sequences, rows, config, engine)
        else:
            yield _uncounted(_batch(sequences, np.arange(1), config, engine))


def _batch(sequences: PackedSequences, rows: NDArray[np.int64], config: TrainConfig, engine: Engine) -> Batch:
    tokens, mask = sequences.rows(rows)
    inputs, eot_id, probes = tokens[:, :-1], sequences.format.tokens.eot_id, sequences.format.probes

    def tensor(array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(engine.device)

    ids = tensor(tokens.astype(np.int64))
    documents = tensor(document_numbers(inputs, eot_id, probes)) if config.isolate_documents else None
    batch = Batch(ids[:, :-1], ids[:, 1:], tensor(mask), int(mask.sum()), documents)
    if probes is None:
        return batch
    labels = sequences.probe_labels(rows, tokens)
    tones, fields = (
        int(np.count_nonzero(labels[inputs == probe] != NO_LABEL)) for probe in (probes.tone_id, probes.field_id)
    )
    return replace(batch, probes=probes, labels=tensor(labels), tone_labels=tones, field_labels=fields)


def _uncounted(batch: Batch) -> Batch:
    labels = None if batch.labels is None else torch.full_like(batch.labels, NO_LABEL)
    mask = torch.zeros_like(batch.mask)
    return replace(batch, mask=mask, tokens=0, labels=labels, tone_labels=0, field_labels=0)
