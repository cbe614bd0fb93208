"""The training loop: one path for every engine and any number of processes.

Everything a step does follows from the config, the packed sequences and the state after the step before. A
training that is stopped anywhere and continued on the same machine gives the losses and the weights of one that
was not, bit for bit.
"""

import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from model.config import ModelConfig, count_parameters
from model.device import choose_device
from model.training.batches import PackedData, evaluation_batches, open_data, step_batches
from model.training.checkpoint import (
    Checkpoint,
    Progress,
    checkpoint_name,
    load_checkpoint,
    machine,
    restore_random_state,
    save_checkpoint,
)
from model.training.config import FINAL, REPORT, TrainingJob
from model.training.engine import Batch, Engine, open_engine
from model.training.metrics import MetricsLog, WandbCopy
from model.training.schedule import learning_rate
from model.transformer import Transformer
from model.weights import TrainedModel, save_description, save_weights
from storage.config import changed
from storage.errors import InputError
from storage.store import Store
from storage.writer import ArtifactWriter

log = logging.getLogger(__name__)


def train(job: TrainingJob, stop_requested: Callable[[], bool]) -> Progress:
    """Train to the last step and commit the parts REPORT and FINAL, or to a requested stop.

    Returns: how far it came; after a stop less than `max_steps`, and a checkpoint holds that step.
    Raises: InputError, also for a loss that is not a number: it comes again; Fault for damaged data.
    """
    # What is announced, reported and compared with a checkpoint is the device that is used, not `auto`.
    job = changed(job, device=choose_device(job.device).type)
    store = Store(job.store)
    writer = ArtifactWriter(store, job.output.stage, job.output.key)
    data = open_data(store, job)
    model_config = job.config.model.model_config_for(job.vocab_size, data.sequence_length)
    torch.manual_seed(job.config.seed)
    model = Transformer(model_config)
    checkpoint = load_checkpoint(writer, job, job.checkpoints[-1]) if job.checkpoints else None
    if checkpoint is not None:
        model.load_state_dict(checkpoint.model.weights)
    with open_engine(job, model, checkpoint.model if checkpoint else None) as engine:
        training = Training(job, writer, data, model_config, engine, checkpoint)
        return training.run(stop_requested)


@dataclass(frozen=True)
class _Update:
    """What a step gave, still on the device: reading it there and then would make the device wait."""

    step: int
    loss: Tensor
    """Summed over the targets of this process."""
    tokens: float
    """Targets of all processes."""
    grad_norm: Tensor


class Training:
    """One process's part in a training."""

    def __init__(
        self,
        job: TrainingJob,
        writer: ArtifactWriter,
        data: PackedData,
        model_config: ModelConfig,
        engine: Engine,
        checkpoint: Checkpoint | None,
    ) -> None:
        self.job, self.config = job, job.config
        self.writer, self.data, self.engine = writer, data, engine
        self.model_config = model_config
        self.is_main = engine.rank == 0
        self.checkpoints = list(job.checkpoints)
        self.start = self.saved = checkpoint.progress if checkpoint else Progress()
        self.step, self.tokens = self.start.step, self.start.tokens
        self.started = time.monotonic()
        self.unread: list[_Update] = []
        self.losses = list(self.start.losses)
        self.grad_norm = 0.0
        self.window = (self.started, self.tokens)
        copy = None
        if self.is_main and job.wandb != "disabled":
            folder = writer.scratch() / "wandb"
            copy = WandbCopy(job.wandb, f"{job.output.stage}-{job.output.key}", job.config.model_dump(), folder)
        self.wandb = copy
        self.metrics = MetricsLog(checkpoint.metrics if checkpoint else [], copy)
        if checkpoint is not None:
            restore_random_state(checkpoint.random)

    def run(self, stop_requested: Callable[[], bool]) -> Progress:
        """Train; see `train`."""
        self._announce()
        config = self.config
        while self.step < config.max_steps:
            step = self.step + 1
            batches = step_batches(self.data.train, config, step, self.engine)
            found = [float(sum(batch.tokens for batch in batches)), float(stop_requested())]
            tokens, stops = self.engine.total(found)
            if stops:  # all processes see the sum, so all stop before the same step
                self._save_checkpoint()
                return self._progress()
            self._update(step, batches, tokens)
            last = step == config.max_steps
            if last or step == 1 or step % config.log_every == 0:
                self._log_metrics()
            if last or step % config.eval_every == 0:
                self._evaluate()
            if not last and step % config.checkpoint_every == 0:
                self._save_checkpoint()
        self._finish()
        return self._progress()

    def _update(self, step: int, batches: list[Batch], tokens: float) -> None:
        # Every target weighs the same, whichever micro-batch or process it is in.
        losses = [self.engine.backward(batch, 1.0 / tokens) for batch in batches]
        grad_norm = self.engine.step(learning_rate(self.config, step))
        self.unread.append(_Update(step, torch.stack(losses).sum(), tokens, grad_norm))
        self.step = step
        self.tokens += int(tokens)

    def _read_updates(self) -> None:
        """Fetch and check the losses since the last call. Raises: InputError at the first that is not a number."""
        losses = self.engine.total([float(update.loss) for update in self.unread])
        for update, summed in zip(self.unread, losses, strict=True):
            loss, norm = summed / update.tokens, float(update.grad_norm)
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise InputError(
                    f"loss and gradient norm must stay finite numbers, found loss {loss} and norm {norm} at step "
                    f"{update.step} (learning rate {learning_rate(self.config, update.step):.3g}); train with a "
                    f"lower learning_rate, a longer warm-up or a lower max_grad_norm"
                )
            self.losses.append(loss)
            self.grad_norm = norm
        self.unread.clear()

    def _log_metrics(self) -> None:
        self._read_updates()
        loss = sum(self.losses) / len(self.losses)
        self.losses.clear()
        now = time.monotonic()
        since, tokens_then = self.window
        speed = (self.tokens - tokens_then) / (now - since)
        self.window = (now, self.tokens)
        if not self.is_main:
            return
        lr = learning_rate(self.config, self.step)
        self.metrics.add(
            {
                "step": self.step,
                "loss": loss,
                "lr": lr,
                "grad_norm": self.grad_norm,
                "tokens": self.tokens,
                "tokens_per_second": round(speed, 1),
                "seconds": round(self._progress().seconds, 3),
            }
        )
        self._say("loss %.4f, lr %.2e, grad norm %.2f, %d tokens/s", loss, lr, self.grad_norm, speed)

    def _evaluate(self) -> None:
        if self.data.validation is None or not self.config.eval_sequences:
            return
        began = time.monotonic()
        summed, tokens = 0.0, 0.0
        for batch in evaluation_batches(self.data.validation, self.config, self.engine):
            summed += float(self.engine.evaluate(batch))
            tokens += batch.tokens
        summed, tokens = self.engine.total([summed, tokens])
        if self.is_main:
            seconds = round(self._progress().seconds, 3)
            self.metrics.add({"step": self.step, "val_loss": summed / tokens, "seconds": seconds})
            self._say("validation loss %.4f", summed / tokens)
        self._exclude(began)

    def _save_checkpoint(self) -> None:
        if self.step == self.saved.step:
            return
        began = time.monotonic()
        self._read_updates()  # a checkpoint of NaNs would be continued for ever
        state = self.engine.state(self.step)
        self.saved = self._progress()
        if self.is_main:
            save_checkpoint(self.writer, self.job, self.saved, state, self.metrics.lines)
            self.checkpoints.append(checkpoint_name(self.step))
            while len(self.checkpoints) > self.config.keep_checkpoints:
                self.writer.discard(self.checkpoints.pop(0))
            self._say("saved a checkpoint")
        self._exclude(began)

    def _finish(self) -> None:
        state = self.engine.state(self.step)
        if not self.is_main:
            return
        folder = self.writer.scratch()
        report = {"metrics.jsonl": folder / "metrics.jsonl", "engine.json": folder / "engine.json"}
        report["metrics.jsonl"].write_text("".join(self.metrics.lines))
        report["engine.json"].write_text(json.dumps({**machine(self.job), **self.engine.settings()}, indent=1))
        if self.wandb is not None and (offline := self.wandb.finish()) is not None:
            report["offline-run.wandb"] = offline
        self.writer.commit(REPORT, report)
        weights, description = folder / "model.safetensors", folder / "model-config.json"
        save_weights(state.weights, weights)
        save_description(
            TrainedModel(model=self.model_config, tokenizer_digest=self.job.tokenizer_digest, steps=self.step),
            description,
        )
        self.writer.commit(
            FINAL,
            {"weights": weights, "model-config": description},
            counts={"parameters": count_parameters(self.model_config), "steps": self.step, "tokens": self.tokens},
        )
        self._say("training is complete")

    def _progress(self) -> Progress:
        seconds = self.start.seconds + time.monotonic() - self.started
        return Progress(self.step, self.tokens, seconds, tuple(self.losses))

    def _exclude(self, began: float) -> None:
        """Leave the time since `began` out of the tokens per second of the next line."""
        since, tokens = self.window
        self.window = (since + time.monotonic() - began, tokens)

    def _announce(self) -> None:
        if self.is_main:
            log.info(
                "training %d parameters on %d sequences of %d tokens with %s",
                count_parameters(self.model_config),
                len(self.data.train),
                self.data.sequence_length,
                machine(self.job),
            )
        if self.start.step:
            self._say("continuing from a checkpoint")

    def _say(self, message: str, *values: object) -> None:
        if self.is_main:
            text = f"step {self.step}/{self.config.max_steps}: {message}"
            log.info(text, *values, extra={"progress": self.step})
