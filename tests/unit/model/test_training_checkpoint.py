"""What a checkpoint keeps, and which ones are refused."""

import random

import numpy as np
import pytest
import torch

from model.training.checkpoint import (
    Progress,
    checkpoint_name,
    load_checkpoint,
    random_state,
    restore_random_state,
    save_checkpoint,
)
from model.training.config import TrainConfig
from model.training.model_state import MOMENTS, ModelState
from storage.artifacts.pending import commit_pending
from storage.artifacts.store import Store
from storage.artifacts.writer import ArtifactWriter
from storage.config import changed
from storage.errors import CorruptFileError, InputError

PROGRESS = Progress(step=70, tokens=12345, seconds=6.5)
METRICS = ['{"step": 1, "loss": 4.1}\n', '{"step": 70, "loss": 3.9}\n']


@pytest.fixture
def job(tiny_corpus, job_for):
    return job_for(tiny_corpus, TrainConfig())


@pytest.fixture
def writer(job) -> ArtifactWriter:
    return ArtifactWriter(Store(job.store), job.output.stage, job.output.key)


def save(writer, job, progress, state, metrics) -> None:
    """Write a checkpoint and hand it over to the store."""
    save_checkpoint(writer, job, progress, state, metrics)
    commit_pending(writer, checkpoint_name(progress.step))


def some_state() -> ModelState:
    shapes = {"b.weight": (3, 4), "a.weight": (5,)}
    extreme = torch.tensor([1e-45, -0.0, 3.4e38, 1 / 3, -1e-20])
    weights = {name: torch.randn(shape) for name, shape in shapes.items()} | {"a.weight": extreme}
    moments = {moment: {name: torch.randn(shape) for name, shape in shapes.items()} for moment in MOMENTS}
    return ModelState(PROGRESS.step, weights, moments)


def test_checkpoint_comes_back_bit_for_bit(job, writer) -> None:
    state = some_state()
    save(writer, job, PROGRESS, state, METRICS)
    again = ArtifactWriter(writer.store, writer.stage, writer.key)
    read = load_checkpoint(again, job, checkpoint_name(70))
    assert (read.progress, read.metrics, read.model.step) == (PROGRESS, METRICS, 70)
    for kept, saved in [
        (read.model.weights, state.weights),
        *((read.model.moments[moment], state.moments[moment]) for moment in MOMENTS),
    ]:
        assert kept.keys() == saved.keys()
        for name, tensor in saved.items():
            assert kept[name].numpy().tobytes() == tensor.numpy().tobytes()


def test_checkpoint_names_sort_by_step() -> None:
    steps = [0, 9, 10, 99_999, 100_000, 999_999]
    assert sorted(map(checkpoint_name, steps)) == list(map(checkpoint_name, steps))


def test_checkpoint_holds_nothing_that_could_be_unpickled(job, writer) -> None:
    save(writer, job, PROGRESS, some_state(), METRICS)
    files = writer.parts()[checkpoint_name(70)].files
    assert {file.role: file.path.rpartition(".")[2] for file in files} == {
        "weights": "safetensors",
        "optimizer": "safetensors",
        "state": "json",
        "metrics": "jsonl",
    }


def test_checkpoint_of_another_training_is_refused(job, writer) -> None:
    save(writer, job, PROGRESS, some_state(), METRICS)
    for other in (
        job.model_copy(update={"config": changed(job.config, learning_rate=1e-4)}),
        changed(job, sequences_digest="f" * 64),
        changed(job, tokenizer_digest="f" * 64),
    ):
        with pytest.raises(InputError, match="must be of this training"):
            load_checkpoint(writer, other, checkpoint_name(70))


def test_checkpoint_is_continued_with_another_engine_and_place(job, writer) -> None:
    save(writer, job, PROGRESS, some_state(), METRICS)
    other = changed(job, engine={"name": "deepspeed", "zero_stage": 3}, processes=2, threads=4)
    assert load_checkpoint(writer, other, checkpoint_name(70)).progress == PROGRESS


def test_checkpoint_with_a_flipped_byte_is_refused(job, writer) -> None:
    save(writer, job, PROGRESS, some_state(), METRICS)
    again = ArtifactWriter(writer.store, writer.stage, writer.key)
    file = next(file for file in writer.parts()[checkpoint_name(70)].files if file.role == "optimizer")
    path = writer.store.backend.local(f"{writer.folder}/{file.path}")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptFileError, match="optimizer"):
        load_checkpoint(again, job, checkpoint_name(70))
    assert again.parts() == {}


def test_random_generators_go_on_where_they_were() -> None:
    saved = random_state()
    drawn = (random.random(), np.random.rand(), torch.rand(4).tolist())  # noqa: NPY002
    restore_random_state(saved)
    assert (random.random(), np.random.rand(), torch.rand(4).tolist()) == drawn  # noqa: NPY002
