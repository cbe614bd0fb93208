"""The loop with the local engine: against a plain reference, and against itself when it is interrupted."""

import json
import math
import shutil
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from model.families.gpt2.config import GPT2Shape
from model.families.presets import preset_shape
from model.families.registry import build_model
from model.families.rope.config import RopeShape
from model.layers.language_model import LanguageModel
from model.pretrained.weights import load_model
from model.training.config import FINAL, REPORT, TrainConfig, model_config_for
from model.training.data import open_data
from model.training.job import TrainingJob
from model.training.loop import train
from model.training.schedules.cosine import learning_rate
from storage.artifacts.store import Store
from storage.artifacts.writer import ArtifactWriter
from storage.config import changed
from storage.errors import InputError
from storage.formats.probes import Probes
from storage.loader.shuffle import batch_indices

CONFIG = TrainConfig(
    model=RopeShape(n_layers=2, n_heads=4, n_kv_heads=2, d_model=16, d_ff=24),
    max_steps=8,
    global_batch_size=8,
    micro_batch_size=4,
    learning_rate=1e-2,
    warmup_steps=2,
    max_grad_norm=0.5,  # smaller than what occurs, so that clipping matters
    checkpoint_every=3,
    eval_every=4,
    eval_sequences=5,
    log_every=1,
)
WORLD = changed(preset_shape("world-1m"), d_model=16, num_experts=4, top_k=2, key_dim=8)
CHANGING = ("seconds", "tokens_per_second")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def never() -> bool:
    return False


def writer_of(job: TrainingJob) -> ArtifactWriter:
    return ArtifactWriter(Store(job.store), job.output.stage, job.output.key)


def metrics_of(job: TrainingJob) -> list[dict[str, Any]]:
    writer = writer_of(job)
    files = {file.role: file for file in writer.parts()[REPORT].files}
    records = [json.loads(line) for line in writer.open(files["metrics.jsonl"]).read_text().splitlines()]
    return [{name: value for name, value in record.items() if name not in CHANGING} for record in records]


def weights_of(job: TrainingJob) -> bytes:
    writer = writer_of(job)
    files = {file.role: file for file in writer.parts()[FINAL].files}
    return writer.open(files["weights"]).read_bytes()


def checkpoints_of(job: TrainingJob) -> tuple[str, ...]:
    return tuple(sorted(name for name in writer_of(job).parts() if name.startswith("step-")))


def resumed(job: TrainingJob) -> TrainingJob:
    return changed(job, checkpoints=checkpoints_of(job))


class Power:
    """Asks for nothing, and fails like a power cut after some questions."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def __call__(self) -> bool:
        self.steps -= 1
        if self.steps < 0:
            raise KeyboardInterrupt
        return False


def alone(model: LanguageModel, tokens: torch.Tensor) -> torch.Tensor:
    """The logits of a sequence whose documents the model reads one by one; a 0 leads all but the first."""
    ends = [*torch.nonzero(tokens == 0).flatten().tolist(), len(tokens)]
    return torch.cat([model(tokens[None, a:b])[0] for a, b in pairwise([0, *ends]) if a < b])


def plain_training(corpus, job: TrainingJob) -> tuple[list[float], list[float], LanguageModel]:
    """The same training, written as plainly as possible: sequence by sequence, AdamW from its paper."""
    config = job.config
    data = open_data(corpus.store, job)
    torch.manual_seed(config.seed)
    model = build_model(model_config_for(config.model, job.vocab_size, data.sequence_length))
    means = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    squares = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    losses, norms = [], []
    for step in range(1, config.max_steps + 1):
        total, count = torch.zeros(()), 0
        for row in batch_indices(step - 1, config.global_batch_size, len(data.train), config.seed):
            tokens = torch.from_numpy(data.train.rows(row[None])[0].astype("int64"))[0]
            logits = alone(model, tokens[:-1])
            for position in range(len(tokens) - 1):
                if tokens[position] != 0 or tokens[position + 1] != 0:
                    total = total + F.cross_entropy(logits[position], tokens[position + 1])
                    count += 1
        model.zero_grad()
        (total / count).backward()
        norm = math.sqrt(sum(float(p.grad.double().square().sum()) for p in model.parameters()))
        losses.append(float(total.detach()) / count)
        norms.append(norm)
        rate = learning_rate(config, step)
        with torch.no_grad():
            for name, p in model.named_parameters():
                gradient = p.grad * min(1.0, config.max_grad_norm / norm)
                means[name] = config.beta1 * means[name] + (1 - config.beta1) * gradient
                squares[name] = config.beta2 * squares[name] + (1 - config.beta2) * gradient**2
                mean = means[name] / (1 - config.beta1**step)
                square = squares[name] / (1 - config.beta2**step)
                decay = config.weight_decay if p.ndim > 1 else 0.0
                p -= rate * decay * p
                p -= rate * mean / (square.sqrt() + 1e-8)
    return losses, norms, model


def test_training_gives_the_losses_of_a_plain_loop(tiny_corpus, job_for) -> None:
    job = job_for(tiny_corpus, CONFIG)
    progress = train(job, never)
    losses, norms, _ = plain_training(tiny_corpus, job)
    logged = [record for record in metrics_of(job) if "loss" in record]
    assert progress.step == CONFIG.max_steps
    assert [record["loss"] for record in logged] == pytest.approx(losses, abs=2e-6)
    assert [record["grad_norm"] for record in logged] == pytest.approx(norms, rel=1e-5)
    assert max(norms) > CONFIG.max_grad_norm
    assert losses[-1] < losses[0] - 0.1


def test_validation_loss_is_the_mean_over_the_targets_that_count(tiny_corpus, job_for, tmp_path) -> None:
    job = job_for(tiny_corpus, CONFIG)
    train(job, never)
    files = {file.role: writer_of(job).open(file) for file in writer_of(job).parts()[FINAL].files}
    model = load_model(files["weights"], files["model-config"])
    total, count = 0.0, 0
    for row in tiny_corpus.rows["val"][: CONFIG.eval_sequences]:
        tokens = torch.from_numpy(row.astype("int64"))
        logits = alone(model, tokens[:-1]).log_softmax(-1).detach()
        for position in range(len(tokens) - 1):
            if tokens[position] != 0 or tokens[position + 1] != 0:
                total -= float(logits[position, tokens[position + 1]])
                count += 1
    measured = [record for record in metrics_of(job) if "val_loss" in record]
    assert [record["step"] for record in measured] == [4, 8]
    assert measured[-1]["val_loss"] == pytest.approx(total / count, abs=1e-5)


@pytest.mark.parametrize("micro_batch_size", [1, 2, 8])
def test_losses_do_not_depend_on_the_micro_batch_size(tiny_corpus, job_for, micro_batch_size: int) -> None:
    first = job_for(tiny_corpus, CONFIG)
    train(first, never)
    other = job_for(tiny_corpus, changed(CONFIG, micro_batch_size=micro_batch_size), output=first.output)
    expected = metrics_of(first)
    writer_of(first).forget_parts()
    train(other, never)
    for name in ("loss", "val_loss", "grad_norm"):
        values = [record[name] for record in metrics_of(other) if name in record]
        assert values == pytest.approx([record[name] for record in expected if name in record], abs=1e-6)


@pytest.mark.parametrize("model", [CONFIG.model, WORLD], ids=["rope", "world"])
def test_how_often_a_training_is_looked_at_changes_no_weight(make_corpus, job_for, tmp_path, model) -> None:
    """So that it is not part of the key: measuring draws nothing and leaves the routers' counts alone."""
    corpus = make_corpus(tmp_path / "corpus", probes=Probes(1, 2))
    config = changed(CONFIG, model=model, max_steps=5, utility_weight=0.1)
    found = set()
    for watching in (
        {},
        {"eval_every": 1, "eval_sequences": 7},
        {"eval_sequences": 0, "log_every": 3},
        {"checkpoint_every": 1, "keep_checkpoints": 1},
    ):
        job = job_for(corpus, changed(config, **watching))
        assert job.identity_digest() == job_for(corpus, config).identity_digest()
        train(job, never)
        found.add(weights_of(job))
        writer_of(job).forget_parts()
    assert len(found) == 1


@pytest.mark.parametrize("model", [CONFIG.model, WORLD], ids=["rope", "world"])
def test_stopped_training_continues_with_smaller_micro_batches(make_corpus, job_for, tmp_path, model) -> None:
    """As after running out of memory: at the checkpoint, with the losses of an undisturbed training."""
    corpus = make_corpus(tmp_path / "corpus", probes=Probes(1, 2))
    config = changed(CONFIG, model=model, max_steps=6, utility_weight=0.1)
    job = job_for(corpus, config)
    train(job, never)
    expected = metrics_of(job)
    shutil.rmtree(Store(job.store).backend.local("artifacts/train"))
    with pytest.raises(KeyboardInterrupt):
        train(job, Power(4))
    smaller = changed(resumed(job), config=changed(config, micro_batch_size=1))
    assert smaller.checkpoints == ("step-000003",)
    train(smaller, never)
    for name in ("loss", "val_loss", "grad_norm"):
        values = [record[name] for record in metrics_of(job) if name in record]
        assert values == pytest.approx([record[name] for record in expected if name in record], abs=1e-5)


@pytest.mark.parametrize("steps_before", [(4,), (6,), (7,), (3, 2, 1)], ids=str)
def test_interrupted_training_gives_the_bits_of_an_undisturbed_one(
    tiny_corpus, job_for, steps_before: tuple[int, ...]
) -> None:
    job = job_for(tiny_corpus, changed(CONFIG, log_every=2))  # checkpoints fall between two lines
    train(job, never)
    expected_metrics, expected_weights = metrics_of(job), weights_of(job)
    shutil.rmtree(Store(job.store).backend.local("artifacts/train"))
    for steps in steps_before:
        with pytest.raises(KeyboardInterrupt):
            train(resumed(job), Power(steps))
        torch.rand(3)  # whatever else the process draws must not matter
    assert checkpoints_of(job)
    train(resumed(job), never)
    assert metrics_of(job) == expected_metrics
    assert weights_of(job) == expected_weights


@pytest.mark.parametrize("family", ["gpt2 with dropout", "rope with dropout", "world with heads"])
def test_every_family_continues_bit_for_bit(make_corpus, job_for, tmp_path, family: str) -> None:
    shapes = {
        "gpt2 with dropout": GPT2Shape(n_layers=1, n_heads=2, d_model=16, dropout=0.2),
        "rope with dropout": RopeShape(n_layers=1, n_heads=2, n_kv_heads=1, d_model=16, d_ff=24, dropout=0.2),
        "world with heads": changed(preset_shape("world-1m"), d_model=16, num_experts=4, top_k=2, key_dim=8),
    }
    corpus = make_corpus(tmp_path / "corpus", probes=Probes(1, 2) if "world" in family else None)
    job = job_for(corpus, changed(CONFIG, model=shapes[family], max_steps=5, utility_weight=0.1))
    train(job, never)
    expected_metrics, expected_weights = metrics_of(job), weights_of(job)
    if "world" in family:
        assert {"tone_loss", "field_loss", "utility_loss", "router_loss", "max_load/07"} <= {
            name for record in expected_metrics for name in record
        }
    shutil.rmtree(Store(job.store).backend.local("artifacts/train"))
    with pytest.raises(KeyboardInterrupt):
        train(resumed(job), Power(4))
    assert checkpoints_of(job) == ("step-000003",)
    train(resumed(job), never)
    assert metrics_of(job) == expected_metrics
    assert weights_of(job) == expected_weights


def test_training_that_is_asked_to_stop_saves_that_step_and_continues(tiny_corpus, job_for) -> None:
    job = job_for(tiny_corpus, CONFIG)
    train(job, never)
    expected_metrics, expected_weights = metrics_of(job), weights_of(job)
    shutil.rmtree(Store(job.store).backend.local("artifacts/train"))
    answers = iter([False] * 5 + [True])
    assert train(job, lambda: next(answers)).step == 5
    assert checkpoints_of(job) == ("step-000003", "step-000005")
    assert train(resumed(job), lambda: True).step == 5  # stopped at once: nothing new to save
    train(resumed(job), never)
    assert metrics_of(job) == expected_metrics
    assert weights_of(job) == expected_weights


def test_two_runs_on_two_threads_give_the_same_bits(tiny_corpus, job_for) -> None:
    torch.set_num_threads(2)
    shape = RopeShape(n_layers=1, n_heads=4, n_kv_heads=2, d_model=128, d_ff=256)  # enough work to be split
    config = changed(CONFIG, model=shape, max_steps=3)
    outcomes = []
    for _ in range(2):
        job = job_for(tiny_corpus, config, threads=2)
        train(job, never)
        outcomes.append((metrics_of(job), weights_of(job)))
        writer_of(job).forget_parts()
    assert outcomes[0] == outcomes[1]


def test_training_keeps_the_newest_checkpoints_only(tiny_corpus, job_for) -> None:
    config = changed(CONFIG, checkpoint_every=1, keep_checkpoints=3)
    job = job_for(tiny_corpus, config)
    train(job, never)
    assert checkpoints_of(job) == ("step-000005", "step-000006", "step-000007")
    stored = [path for path in Store(job.store).paths("artifacts/train") if "/data/step-" in path]
    assert {path.split("/data/")[1][:11] for path in stored} == set(checkpoints_of(job))


def test_training_whose_loss_is_no_number_names_the_step_and_saves_nothing_after(tiny_corpus, job_for) -> None:
    config = changed(CONFIG, learning_rate=1e30, warmup_steps=0, checkpoint_every=1, log_every=8)
    job = job_for(tiny_corpus, config)
    with pytest.raises(InputError, match=r"finite numbers, found .*nan at step 2 .*learning_rate"):
        train(job, never)
    assert checkpoints_of(job) == ("step-000001",)


@pytest.mark.parametrize(("log_every", "steps"), [(3, [1, 3, 6, 8]), (100, [1, 8])])
def test_metrics_hold_the_mean_loss_since_the_line_before(
    tiny_corpus, job_for, log_every: int, steps: list[int]
) -> None:
    every = job_for(tiny_corpus, CONFIG)
    train(every, never)
    losses = [record["loss"] for record in metrics_of(every) if "loss" in record]
    writer_of(every).forget_parts()
    job = job_for(tiny_corpus, changed(CONFIG, log_every=log_every))
    train(job, never)
    logged = [record for record in metrics_of(job) if "loss" in record]
    means = [sum(losses[a:b]) / (b - a) for a, b in pairwise([0, *steps])]
    assert [record["step"] for record in logged] == steps
    assert [record["loss"] for record in logged] == pytest.approx(means, rel=1e-12)


def test_final_part_is_what_load_model_reads(tiny_corpus, job_for) -> None:
    job = job_for(tiny_corpus, CONFIG)
    progress = train(job, never)
    final = writer_of(job).parts()[FINAL]
    files = {file.role: writer_of(job).open(file) for file in final.files}
    model = load_model(files["weights"], files["model-config"])
    assert final.counts == {
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps": CONFIG.max_steps,
        "tokens": progress.tokens,
    }
    _, _, plain = plain_training(tiny_corpus, job)
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(model.get_parameter(name), parameter, atol=2e-4, rtol=0)
