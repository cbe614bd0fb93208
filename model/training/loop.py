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

import torch

from model.export.saving import save_weights
from model.families.base import ModelConfig
from model.families.estimate import count_parameters
from model.families.registry import build_model
from model.layers.device import choose_device
from model.pretrained.weights import MODEL_CONFIG, WEIGHTS, ModelDescription, save_description
from model.training.batch import Batch, Totals
from model.training.checkpoint import (
    Checkpoint,
    Progress,
    checkpoint_name,
    load_checkpoint,
    machine,
    restore_random_state,
    save_checkpoint,
)
from model.training.committer import Committer
from model.training.config import FINAL, METRICS_LOG, REPORT, model_config_for
from model.training.data import PackedData, evaluation_batches, open_data, step_batches
from model.training.engines.base import Engine
from model.training.job import TrainingJob
from model.training.metrics import MetricsLog, WandbCopy
from model.training.objective import LabelCounts, Objective
from model.training.schedules.cosine import learning_rate
from model.training.update import Update, count, mean_loss, update
from storage.artifacts.store import Store
from storage.artifacts.writer import ArtifactWriter
from storage.config import changed
from storage.errors import InputError
from storage.formats.probes import PROBE_KINDS

log = logging.getLogger(__name__)


def train(job: TrainingJob, stop_requested: Callable[[], bool], store: Store | None = None) -> Progress:
    """Train to the last step and commit the parts REPORT and FINAL, or to a requested stop.

    `store` is the one of the job, for a caller that must be able to stop its waiting.
    Returns: how far it came; after a stop less than `max_steps`, and a checkpoint holds that step.
    Raises: InputError, also for a loss that is not a number: it comes again; Fault for damaged data.
    """
    # What is announced, reported and compared with a checkpoint is the device that is used, not `auto`.
    device = choose_device(job.device)
    job = changed(job, device=device.type)
    store = store or Store(job.store, job.store_patience)
    writer = ArtifactWriter(store, job.output.stage, job.output.key, job.claim)
    data = open_data(store, job)
    model_config = model_config_for(job.config.model, job.vocab_size, data.sequence_length)
    torch.manual_seed(job.config.seed)
    model = build_model(model_config)
    checkpoint = load_checkpoint(writer, job, job.checkpoints[-1]) if job.checkpoints else None
    if checkpoint is not None:
        model.load_state_dict(checkpoint.model.weights)
    objective = Objective(model, job.config, label_counts(model_config, data))
    with job.engine.open(objective, device, job.folder, checkpoint.model if checkpoint else None) as engine:
        training = Training(job, writer, data, objective, engine, checkpoint)
        try:
            return training.run(stop_requested)
        finally:
            training.close()


class Training:
    """One process's part in a training."""

    def __init__(
        self,
        job: TrainingJob,
        writer: ArtifactWriter,
        data: PackedData,
        objective: Objective,
        engine: Engine,
        checkpoint: Checkpoint | None,
    ) -> None:
        self.job, self.config = job, job.config
        self.writer, self.data, self.engine = writer, data, engine
        self.objective = objective
        self.model_config: ModelConfig = objective.model.config
        self.is_main = engine.rank == 0
        self.committer = Committer(writer, job.checkpoints, job.config.keep_checkpoints) if self.is_main else None
        self.start = self.saved = checkpoint.progress if checkpoint else Progress()
        self.step, self.tokens = self.start.step, self.start.tokens
        self.started = time.monotonic()
        self.unread: list[Update] = []
        self.losses = list(self.start.losses)
        self.grad_norm = 0.0
        self.warned = False
        self.note = ""
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
            *counts, stops = self.engine.total([*count(batches), float(stop_requested())])
            if stops:  # all processes see the sum, so all stop before the same step
                self._save_checkpoint()
                if self.committer and not self.committer.stop():
                    log.warning("the store is away: the last checkpoint is on this machine only; continue here")
                return self._progress()
            if self.committer:
                self.committer.check()
            self._update(step, batches, Totals(*counts))
            last = step == config.max_steps
            if last or step == 1 or step % config.log_every == 0:
                self._log_metrics()
            if last or step % config.eval_every == 0:
                self._evaluate()
            if not last and step % config.checkpoint_every == 0:
                self._save_checkpoint()
        self._finish()
        return self._progress()

    def close(self) -> None:
        """Commit no more checkpoints than were saved."""
        if self.committer:
            self.committer.close()

    def _update(self, step: int, batches: list[Batch], totals: Totals) -> None:
        self.unread.append(update(self.engine, self.objective, step, batches, totals))
        self.step = step
        self.tokens += int(totals.tokens)

    def _read_updates(self) -> None:
        """Fetch and check the losses since the last call. Raises: InputError at the first that is not a number."""
        losses = self.engine.total([float(one.loss) for one in self.unread])
        for one, summed in zip(self.unread, losses, strict=True):
            loss, norm = summed / one.tokens, float(one.grad_norm)
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise InputError(
                    f"loss and gradient norm must stay finite numbers, found loss {loss} and norm {norm} at step "
                    f"{one.step} (learning rate {learning_rate(self.config, one.step):.3g}); train with a "
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
        parts = self.objective.read_metrics()
        if not self.warned and (problem := self.objective.model.warning(parts, self.step)):
            self.warned = True
            log.warning("step %d: %s", self.step, problem)
        self.metrics.add(
            {
                "step": self.step,
                "loss": loss,
                "lr": lr,
                "grad_norm": self.grad_norm,
                "tokens": self.tokens,
                "tokens_per_second": round(speed, 1),
                "seconds": round(self._progress().seconds, 3),
                **parts,
            }
        )
        self.note = f"loss {loss:.3f}"
        self._say("loss %.4f, lr %.2e, grad norm %.2f, %d tokens/s", loss, lr, self.grad_norm, speed)

    def _evaluate(self) -> None:
        if self.data.validation is None or not self.config.eval_sequences:
            return
        began = time.monotonic()
        loss = mean_loss(self.engine, evaluation_batches(self.data.validation, self.config, self.engine))
        if self.is_main:
            seconds = round(self._progress().seconds, 3)
            self.metrics.add({"step": self.step, "val_loss": loss, "seconds": seconds})
            self._say("validation loss %.4f", loss)
        self._exclude(began)

    def _save_checkpoint(self) -> None:
        if self.step == self.saved.step:
            return
        began = time.monotonic()
        self._read_updates()  # a checkpoint of NaNs would be continued for ever
        state = self.engine.state(self.step)
        self.saved = self._progress()
        if self.committer:
            save_checkpoint(self.writer, self.job, self.saved, state, self.metrics.lines)
            is_committed = self.committer.submit(checkpoint_name(self.step))
            self._say("saved a checkpoint" if is_committed else "saved a checkpoint on this machine for now")
        self._exclude(began)

    def _finish(self) -> None:
        state = self.engine.state(self.step)
        if not self.committer:
            return
        self.committer.finish()
        folder = self.writer.scratch()
        report = {METRICS_LOG: folder / METRICS_LOG, "engine.json": folder / "engine.json"}
        report[METRICS_LOG].write_text("".join(self.metrics.lines))
        report["engine.json"].write_text(json.dumps({**machine(self.job), **self.engine.settings()}, indent=1))
        if self.wandb is not None and (offline := self.wandb.finish()) is not None:
            report["offline-run.wandb"] = offline
        self.writer.commit(REPORT, report)
        weights, description = folder / "model.safetensors", folder / "model-config.json"
        save_weights(state.weights, weights)
        save_description(
            ModelDescription(
                model=self.model_config,
                tokenizer_digest=self.job.tokenizer_digest,
                steps=self.step,
                has_trained_heads=self._trains_heads,
            ),
            description,
        )
        self.writer.commit(
            FINAL,
            {WEIGHTS: weights, MODEL_CONFIG: description},
            counts={"parameters": count_parameters(self.model_config), "steps": self.step, "tokens": self.tokens},
        )
        self._say("training is complete")

    @property
    def _trains_heads(self) -> bool:
        return bool(self.model_config.classes()) and self.data.probes is not None

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
            if (kinds := self.model_config.classes()) and not self._trains_heads:
                log.warning(
                    "the heads for %s learn nothing: the sequences were packed without probe tokens; set "
                    "pack.probe_tokens=true to train them",
                    " and ".join(kinds),
                )
        if self.start.step:
            self._say("continuing from a checkpoint")

    def _say(self, message: str, *values: object) -> None:
        if self.is_main:
            text = f"step {self.step}/{self.config.max_steps}: {message}"
            log.info(text, *values, extra={"progress": self.step, "note": self.note})


def label_counts(config: ModelConfig, data: PackedData) -> LabelCounts:
    """Return how often each class of the model's heads is a label in the training data; none without heads."""
    classes = config.classes()
    if not classes:
        return {}
    counts = data.train.count_labels(*(classes.get(kind, 0) for kind in PROBE_KINDS))
    return {kind: found for kind, found in zip(PROBE_KINDS, counts, strict=True) if kind in classes}
