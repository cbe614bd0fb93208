"""The train stage with a real trainer process, on a tiny corpus."""

import dataclasses
import json
import logging
from typing import Any

import pytest
import torch

from model.families.rope.config import RopeShape
from model.pretrained.weights import load_model
from model.training.config import CHECKPOINT_PREFIX, FINAL, TrainConfig
from model.training.job import ArtifactRef, TrainerStatus, TrainingJob
from model.training.loop import train
from storage.artifacts.store import Artifact
from storage.artifacts.writer import ArtifactWriter
from storage.config import changed
from storage.errors import Fault, InputError
from tasks.core.context import TABLES
from tasks.core.execution import Execution
from tasks.core.runner import run_stage
from tasks.core.stage import RunContext, stage_key
from tasks.train.build import check_execution
from tasks.train.process import failure
from tasks.train.stage import STAGE, describe_attempt

CONFIG = TrainConfig(
    model=RopeShape(n_layers=1, n_heads=2, n_kv_heads=1, d_model=16, d_ff=24),
    max_steps=7,
    global_batch_size=8,
    micro_batch_size=4,
    warmup_steps=2,
    checkpoint_every=2,
    eval_every=4,
    eval_sequences=5,
    log_every=1,
)
EXECUTION = Execution(threads=1, device="cpu")


def run(corpus, config: TrainConfig = CONFIG, execution: Execution = EXECUTION, **options: Any) -> Artifact:
    """Run the stage; `progress` collects what it reports."""
    seen = options.pop("progress", [])
    context = RunContext(
        store=corpus.store,
        run_id="test",
        recipe={},
        execution=execution,
        progress=lambda done, total, unit, *_: seen.append((done, total, unit)),
    )
    return run_stage(STAGE, config, inputs(corpus), context, **options).artifact


def inputs(corpus) -> dict[str, Artifact]:
    return {"sequences": corpus.sequences, "tokenizer": corpus.tokenizer}


def writer_for(corpus, config: TrainConfig = CONFIG) -> ArtifactWriter:
    digests = {name: artifact.content_digest for name, artifact in inputs(corpus).items()}
    return ArtifactWriter(corpus.store, STAGE.name, stage_key(STAGE, config, digests, {}))


def metrics(artifact: Artifact) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in artifact.report("metrics.jsonl").splitlines()]
    changing = ("seconds", "tokens_per_second")
    return [{name: value for name, value in record.items() if name not in changing} for record in records]


def test_stage_publishes_weights_with_their_reports(tiny_corpus) -> None:
    progress: list[tuple[int, int, str]] = []
    artifact = run(tiny_corpus, progress=progress)

    weights, described = artifact.open(artifact.file("weights")), artifact.open(artifact.file("model-config"))
    model = load_model(weights, described)
    assert {file.part for file in artifact.manifest.files} == {FINAL}
    assert artifact.counts["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert artifact.counts["steps"] == CONFIG.max_steps
    assert model.config.vocab_size == 64
    assert json.loads(described.read_bytes())["tokenizer_digest"] == tiny_corpus.tokenizer.content_digest

    losses = [record["loss"] for record in metrics(artifact) if "loss" in record]
    (row,) = json.loads(artifact.report(TABLES))["Training"]
    assert len(losses) == CONFIG.max_steps
    assert row["last loss"] == round(losses[-1], 4)
    assert json.loads(artifact.report("engine.json"))["engine"] == "local"
    assert progress[-1] == (CONFIG.max_steps, CONFIG.max_steps, "steps")
    assert list(writer_for(tiny_corpus).parts()) == [FINAL, "training-report"]
    assert not [path for path in tiny_corpus.store.paths("artifacts/train") if "step-" in path]


def fail_after(corpus, job: TrainingJob, steps: int) -> ArtifactWriter:
    """Train some steps of the stage's artifact, then break off."""
    torch.set_num_threads(1)
    writer = writer_for(corpus)
    left = iter(range(steps))
    with pytest.raises(StopIteration):
        train(changed(job, output=ArtifactRef(stage=writer.stage, key=writer.key)), lambda: next(left) < 0)
    return writer


def test_stage_continues_from_the_newest_checkpoint_that_is_intact(
    tiny_corpus, tmp_path, make_corpus, job_for, caplog
) -> None:
    undisturbed = run(make_corpus(tmp_path / "undisturbed"))
    writer = fail_after(tiny_corpus, job_for(tiny_corpus, CONFIG), steps=5)
    assert sorted(writer.parts()) == ["step-000002", "step-000004"]
    weights = writer.part("step-000004").files[0]
    path = tiny_corpus.store.backend.local(f"{writer.folder}/{weights.path}")
    path.write_bytes(path.read_bytes()[:-1] + b"!")

    caplog.set_level(logging.INFO)
    artifact = run(tiny_corpus)
    assert "doing a part again" in caplog.text
    assert "step 2/7: continuing from a checkpoint" in caplog.text
    assert artifact.content_digest == undisturbed.content_digest
    assert metrics(artifact) == metrics(undisturbed)


def test_stage_whose_weights_are_committed_trains_no_more(tiny_corpus, caplog) -> None:
    first = run(tiny_corpus)
    tiny_corpus.store.backend.delete(f"artifacts/train/{first.manifest.key}/manifest.json")
    caplog.clear()
    caplog.set_level(logging.INFO)
    again = run(tiny_corpus)
    assert "step 1/7" not in caplog.text
    assert again.manifest.files == first.manifest.files
    assert metrics(again) == metrics(first)


def test_stage_on_another_number_of_threads_has_the_same_key(tiny_corpus) -> None:
    first = run(tiny_corpus)
    again = run(tiny_corpus, changed(CONFIG, checkpoint_every=1), changed(EXECUTION, threads=2))
    assert again.manifest == first.manifest


def test_loss_that_is_no_number_is_an_input_error_without_a_trace(tiny_corpus) -> None:
    config = changed(CONFIG, learning_rate=1e30, warmup_steps=0)
    with pytest.raises(InputError, match=r"finite numbers, found .* at step 2") as raised:
        run(tiny_corpus, config)
    assert "Traceback" not in str(raised.value)
    assert sorted(writer_for(tiny_corpus, config).parts()) == []


def test_stage_raises_the_input_error_of_the_trainer_as_its_own(tiny_corpus) -> None:
    with pytest.raises(InputError, match="device 'mps' must be usable"):
        run(tiny_corpus, execution=Execution(device="mps"))


def test_stage_refuses_sequences_of_another_tokenizer(tiny_corpus, tmp_path, make_corpus) -> None:
    other = tiny_corpus.tokenizer.manifest.model_copy(update={"content_digest": "e" * 64})
    mixed = dataclasses.replace(tiny_corpus, tokenizer=Artifact(tiny_corpus.store, other))
    with pytest.raises(InputError, match=r"must be packed with the tokenizer train-tokenizer/.*eeeeeeeeeeee"):
        run(mixed)


@pytest.mark.parametrize(
    ("execution", "named"),
    [
        (Execution(processes=2), "the local engine trains in one process, found processes=2"),
        (
            Execution(engine="deepspeed", processes=3),
            "multiple of micro_batch_size times processes, found 8 for 4",
        ),
    ],
)
def test_execution_that_cannot_train_the_config_is_refused(execution: Execution, named: str) -> None:
    with pytest.raises(InputError, match=named):
        check_execution(CONFIG, execution)


def test_failure_of_a_trainer_keeps_the_kind_of_its_error() -> None:
    assert type(failure(TrainerStatus(state="input-error", message="no"))) is InputError
    assert type(failure(TrainerStatus(state="fault", message="no"))) is Fault
    assert "stopped at step 3 of 7; run it again" in str(
        failure(TrainerStatus(state="stopped", message="step 3 of 7"))
    )
    assert type(failure(TrainerStatus(state="failed", message="killed"))) is Fault


def test_an_attempt_says_how_far_its_newest_checkpoint_is() -> None:
    parts = [f"{CHECKPOINT_PREFIX}00001200", f"{CHECKPOINT_PREFIX}00000400"]
    assert describe_attempt({"max_steps": 5000}, parts) == "step 1,200 of 5,000"
    assert describe_attempt({"max_steps": 5000}, []) == "no checkpoint yet"
