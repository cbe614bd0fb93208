"""The deepspeed engine on two processes over gloo, without a compiler, against the local engine."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from model.families.presets import preset_shape
from model.families.rope.config import RopeShape
from model.training.config import FINAL, REPORT, TrainConfig
from model.training.job import TrainingJob
from storage.artifacts.store import Store
from storage.artifacts.writer import ArtifactWriter
from storage.config import changed
from storage.formats.probes import Probes
from tasks.train.process import run_trainer

pytestmark = pytest.mark.slow

CONFIG = TrainConfig(
    model=RopeShape(n_layers=2, n_heads=4, n_kv_heads=2, d_model=32, d_ff=48),
    max_steps=7,
    global_batch_size=8,
    micro_batch_size=2,
    learning_rate=1e-2,
    warmup_steps=2,
    max_grad_norm=0.5,
    checkpoint_every=4,
    eval_every=3,
    eval_sequences=5,  # not a multiple of two processes
    log_every=1,
)


def on_two(**options: object) -> dict[str, object]:
    return {"engine": {"name": "deepspeed", **options}, "processes": 2}


WORLD = changed(
    CONFIG, model=changed(preset_shape("world-1m"), d_model=32, num_experts=8, top_k=2), learning_rate=3e-3
)
PROBES = Probes(59, 60)


class Training:
    """Trainings of one corpus, one after the other, in real processes."""

    def __init__(self, job: TrainingJob, folder: Path) -> None:
        self.job, self.folder = job, folder
        self.steps: list[int] = []
        self.starts = 0
        self.writer = ArtifactWriter(Store(job.store), job.output.stage, job.output.key)

    def run(self, progress: Callable[[int, int, str], None] = lambda *_: None, **fields: Any) -> None:
        """Train to the end, from the newest checkpoint there is."""
        checkpoints = tuple(sorted(name for name in self.writer.parts() if name.startswith("step-")))
        self.starts += 1
        folder = str(self.folder / f"trainer-{self.starts}")
        job = changed(self.job, checkpoints=checkpoints, folder=folder, **fields)
        self.steps = []

        def watch(step: int, total: int, unit: str, *_: str) -> None:
            self.steps.append(step)
            progress(step, total, unit)

        status = run_trainer(job, watch)
        assert FINAL in self.writer.parts(), status.message

    def file(self, part: str, role: str) -> Path:
        """Return a file of a finished training."""
        files = {file.role: file for file in self.writer.parts()[part].files}
        return self.writer.open(files[role])

    def metrics(self) -> dict[str, list[float]]:
        """Return what was measured: name -> value at each step."""
        records = [json.loads(line) for line in self.file(REPORT, "metrics.jsonl").read_text().splitlines()]
        names = ("step", "loss", "val_loss", "grad_norm", "tokens", "lr")
        return {name: [record[name] for record in records if name in record] for name in names}

    def weights(self) -> dict[str, np.ndarray]:
        """Return the final weights."""
        return load_file(self.file(FINAL, "weights"))

    def forget_result(self) -> None:
        """Remove the result, leave the checkpoints."""
        self.writer.discard(FINAL)
        self.writer.discard(REPORT)


@pytest.fixture
def training(tiny_corpus, job_for, tmp_path: Path) -> Training:
    return Training(job_for(tiny_corpus, CONFIG), tmp_path)


@pytest.fixture
def local(tmp_path: Path, make_corpus, job_for) -> Training:
    training = Training(job_for(make_corpus(tmp_path / "local"), CONFIG), tmp_path / "local")
    training.run()
    return training


def assert_close(found: Training, expected: Training) -> None:
    ours, theirs = found.metrics(), expected.metrics()
    assert ours["step"] == theirs["step"]
    assert ours["tokens"] == theirs["tokens"]
    for name in ("loss", "val_loss"):
        assert ours[name] == pytest.approx(theirs[name], abs=1e-6)
    assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-5)
    for name, tensor in expected.weights().items():
        # AdamW divides by the root of tiny squares: a last digit of a gradient becomes more in a weight.
        np.testing.assert_allclose(found.weights()[name], tensor, atol=1e-4)


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_deepspeed_trains_and_resumes_like_the_local_engine(
    training: Training, local: Training, zero_stage
) -> None:
    training.run(**on_two(zero_stage=zero_stage))
    assert_close(training, local)
    settings = json.loads(training.file(REPORT, "engine.json").read_bytes())
    assert settings["deepspeed"]["zero_optimization"]["stage"] == zero_stage
    assert "auto" not in json.dumps(settings["deepspeed"])

    straight_metrics, straight_weights = training.metrics(), training.weights()
    training.forget_result()
    training.run(**on_two(zero_stage=zero_stage))
    assert training.steps[0] == 4  # continued, not begun again
    assert training.metrics() == straight_metrics
    for name, tensor in straight_weights.items():
        assert training.weights()[name].tobytes() == tensor.tobytes()


def test_checkpoint_is_continued_by_another_engine_on_other_processes(training: Training, local: Training) -> None:
    training.run(**on_two(zero_stage=3))
    training.forget_result()
    training.run()
    assert training.steps[0] == 4
    assert_close(training, local)
    training.forget_result()
    training.run(**on_two(zero_stage=1))  # from the same checkpoint of ZeRO-3
    assert training.steps[0] == 4
    assert_close(training, local)


@pytest.mark.parametrize("zero_stage", [0, 3])
def test_world_model_trains_like_the_local_engine_and_is_continued_by_it(
    zero_stage: int, tmp_path: Path, make_corpus, job_for
) -> None:
    """With the same micro-batches, of which its auxiliary losses are means; utility queries all positions."""
    folders = [tmp_path / name for name in ("ours", "local")]
    found, local = (Training(job_for(make_corpus(folder, probes=PROBES), WORLD), folder) for folder in folders)
    local.run()
    found.run(**on_two(zero_stage=zero_stage))
    assert_close(found, local)
    biases = [name for name in local.weights() if name.endswith("e_score_correction_bias")]
    assert len(biases) == WORLD.model.n_layers
    for name in biases:
        assert local.weights()[name].any()
        np.testing.assert_array_equal(found.weights()[name], local.weights()[name])
    found.forget_result()
    found.run()
    assert found.steps[0] == 4
    assert_close(found, local)


def test_interrupted_processes_agree_on_the_step_that_they_save(training: Training) -> None:
    training.job = changed_steps(training.job, 300)

    def interrupt(step: int, total: int, unit: str) -> None:
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.run(interrupt, **on_two())
    saved = sorted(training.writer.parts())
    assert FINAL not in saved
    assert int(saved[-1].removeprefix("step-")) >= 3


def changed_steps(job: TrainingJob, steps: int) -> TrainingJob:
    return job.model_copy(update={"config": changed(job.config, max_steps=steps, checkpoint_every=1000)})
