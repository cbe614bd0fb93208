"""What tests share: small inputs to train on, and loggers as they were."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model.training.config import TrainConfig
from model.training.job import ArtifactRef, TrainingJob
from storage.artifacts.records import Part
from storage.artifacts.store import Artifact, Store
from storage.artifacts.writer import ArtifactWriter
from storage.formats.packed import PackedFormat, SequenceWriter
from storage.formats.probes import NO_LABEL, Probes
from storage.formats.tokens import SEQUENCES, TokenFormat
from tasks.core.loggers import LOGGERS

VOCAB_SIZE, LENGTH, EOT = 61, 16, 0


AT_FIRST = [
    (logger, logger.level, logger.propagate, tuple(logger.handlers)) for logger in map(logging.getLogger, LOGGERS)
]
"""Loggers before any test: a fixture of a whole module that calls `main` comes before those of its tests."""


@pytest.fixture(autouse=True)
def loggers_as_at_first() -> Iterator[None]:
    """Take back that `main` shows log lines on its standard error: later tests would log into a closed stream."""
    yield
    for logger, level, propagate, handlers in AT_FIRST:
        logger.setLevel(level)  # not the attribute: what loggers below it remember of it is forgotten
        logger.propagate, logger.handlers[:] = propagate, handlers


@dataclass(frozen=True)
class TinyCorpus:
    """Packed sequences and their tokenizer, as artifacts of a store."""

    store: Store
    sequences: Artifact
    tokenizer: Artifact
    rows: dict[str, list[NDArray[np.uint16]]]
    """The rows of each split as they were written, without padding."""
    labels: dict[str, list[list[int]]]
    """The labels of the probe tokens in each of these rows."""


@pytest.fixture
def tiny_corpus(tmp_path: Path) -> TinyCorpus:
    """42 sequences of 16 tokens to learn from, in two files, and 7 to validate on; a vocabulary of 61."""
    return make_tiny_corpus(tmp_path)


@pytest.fixture
def make_corpus() -> Callable[..., TinyCorpus]:
    """The function behind `tiny_corpus`, for tests that need more than one."""
    return make_tiny_corpus


PARTS = ("train-00000", "train-00001", "val-00000")


def make_tiny_corpus(folder: Path, names: tuple[str, ...] = PARTS, probes: Probes | None = None) -> TinyCorpus:
    """Write documents in which each token follows from the one before, except for chance.

    With probes both follow every document, with labels of which every third or so is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    store = Store(str(folder / "store"))
    (folder / "tokenizer.json").write_text("{}")
    tokenizer = publish(
        store, "train-tokenizer", {"tokenizer": folder / "tokenizer.json"}, {"vocab_size": VOCAB_SIZE}, {}
    )
    random = np.random.default_rng(0)
    rows: dict[str, list[NDArray[np.uint16]]] = {"train": [], "val": []}
    labels: dict[str, list[list[int]]] = {"train": [], "val": []}
    writer = ArtifactWriter(store, "pack", "0" * 16)
    parts = []
    for part in names:
        split = part.partition("-")[0]
        path = folder / f"{part}.parquet"
        packed_format = PackedFormat(TokenFormat(VOCAB_SIZE, EOT, "0" * 64), LENGTH, probes)
        with SequenceWriter(path, packed_format, row_group_sequences=8) as sequences:
            for _ in range(21 if split == "train" else 7):
                pieces = _pieces(random)
                if probes:
                    pieces = [_probed(piece, probes) for piece in pieces]
                pairs = len(pieces) if probes else 0
                labels[split].append(random.choice([NO_LABEL, 1, 4], 2 * pairs).tolist())
                sequences.write(pieces, labels[split][-1])
                rows[split].append(np.concatenate(pieces))
        parts.append(writer.commit(part, {SEQUENCES: path}, counts={"sequences": sequences.sequences}))
    return TinyCorpus(store, _published(writer, parts, {"tokenizer": tokenizer}), tokenizer, rows, labels)


def _pieces(random: np.random.Generator) -> list[NDArray[np.uint16]]:
    """One or two documents that fill a row of 17 tokens, or a part of it."""
    sizes = random.permutation([9, 8 - int(random.integers(0, 3))])[: int(random.integers(1, 3))]
    return [_document(int(size), random) for size in sizes]


def _document(size: int, random: np.random.Generator) -> NDArray[np.uint16]:
    tokens = [int(random.integers(1, VOCAB_SIZE))]
    while len(tokens) < size - 1:
        tokens.append(1 + (7 * tokens[-1] + int(random.integers(0, 2))) % (VOCAB_SIZE - 1))
    return np.array([*tokens, EOT], np.uint16)


def _probed(document: NDArray[np.uint16], probes: Probes) -> NDArray[np.uint16]:
    """Put probes behind a document instead of two of its tokens; no other token has their ids."""
    ordinary = np.setdiff1d(np.arange(1, VOCAB_SIZE), [probes.tone_id, probes.field_id])
    text = ordinary[document[:-3] % ordinary.size]
    return np.array([*text, EOT, probes.tone_id, probes.field_id], np.uint16)


def publish(
    store: Store, stage: str, files: dict[str, Path], counts: dict[str, int], inputs: dict[str, Artifact]
) -> Artifact:
    """Make an artifact of one part."""
    writer = ArtifactWriter(store, stage, "0" * 16)
    return _published(writer, [writer.commit(stage, files, counts=counts)], inputs)


def _published(writer: ArtifactWriter, parts: list[Part], inputs: dict[str, Artifact]) -> Artifact:
    return writer.publish(
        parts,
        version=1,
        config={},
        inputs=inputs,
        sources={},
        recipe={},
        run_id="test",
        code_commit="",
        libraries={},
        started="",
        seconds=0.0,
    )


@pytest.fixture
def job_for(tmp_path: Path) -> Callable[..., TrainingJob]:
    """A function from corpus, config and changed fields to the job of a trainer on one thread."""

    def job_for(corpus: TinyCorpus, config: TrainConfig, **fields: Any) -> TrainingJob:
        defaults = {
            "store": corpus.store.url,
            "output": ArtifactRef(stage="train", key="1" * 16),
            "sequences": ArtifactRef(stage="pack", key="0" * 16),
            "sequences_digest": corpus.sequences.content_digest,
            "tokenizer_digest": corpus.tokenizer.content_digest,
            "vocab_size": VOCAB_SIZE,
            "config": config,
            "engine": "local",
            "device": "cpu",
            "processes": 1,
            "threads": 1,
            "wandb": "disabled",
            "checkpoints": (),
            "folder": str(tmp_path / "trainer"),
        }
        return TrainingJob(**{**defaults, **fields})

    return job_for
