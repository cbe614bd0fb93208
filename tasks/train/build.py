"""How the stage `train` is built: a job for the trainer process, and what it leaves."""

import json
import logging
import os
from collections.abc import Sequence

from model.training.config import CHECKPOINT_PREFIX, FINAL, METRICS_LOG, REPORT, TrainConfig
from model.training.job import ArtifactRef, TrainingJob
from storage.artifacts.pending import commit_pending, drop_pending, pending_parts
from storage.artifacts.records import JsonDict, Part
from storage.artifacts.store import Artifact
from storage.artifacts.writer import ArtifactWriter
from storage.errors import InputError
from tasks.core.context import StageContext
from tasks.core.execution import Execution
from tasks.train.process import failure, run_trainer

log = logging.getLogger(__name__)


def train_model(
    config: TrainConfig, sequences: Artifact, tokenizer: Artifact, *, context: StageContext
) -> Sequence[Part]:
    """Train in a process of its own, or pick up what an earlier attempt finished.

    Raises: InputError for an execution that cannot train this config; Fault, with which a retry continues.
    """
    parts = parts_with_pending(context.writer)
    if FINAL not in parts:
        job = training_job(config, sequences, tokenizer, context, checkpoints=checkpoint_names(parts))
        status = run_trainer(job, context.progress)
        parts = context.writer.parts()
        if FINAL not in parts:
            raise failure(status)
    for name in checkpoint_names(parts):
        context.writer.discard(name)
    report_training(parts[FINAL], parts.get(REPORT), context)
    return [parts[FINAL]]


def parts_with_pending(writer: ArtifactWriter) -> dict[str, Part]:
    """Return the committed parts, a newer checkpoint that an earlier attempt left on this machine included."""
    parts = writer.parts()
    pending = pending_parts(writer)
    for name in pending:
        if name == pending[-1] and FINAL not in parts and name > max(checkpoint_names(parts), default=""):
            log.info("committing the checkpoint %s, which was only on this machine", name)
            commit_pending(writer, name)
            parts = writer.parts()
        else:
            drop_pending(writer, name)
    return parts


def checkpoint_names(parts: dict[str, Part]) -> tuple[str, ...]:
    """Return the parts that are checkpoints, oldest first."""
    return tuple(sorted(name for name in parts if name.startswith(CHECKPOINT_PREFIX)))


def training_job(
    config: TrainConfig,
    sequences: Artifact,
    tokenizer: Artifact,
    context: StageContext,
    checkpoints: tuple[str, ...],
) -> TrainingJob:
    """Return what the trainer is told. Raises: InputError if config, execution and inputs do not fit together."""
    execution = context.execution
    check_execution(config, execution)
    packed_with = sequences.manifest.inputs.get("tokenizer")
    if packed_with is not None and packed_with.content_digest != tokenizer.content_digest:
        raise InputError(
            f"{sequences.ref} must be packed with the tokenizer {tokenizer.ref} "
            f"(content {tokenizer.content_digest:.12}), found content {packed_with.content_digest:.12}; "
            f"pack again with this tokenizer"
        )
    return TrainingJob(
        store=context.writer.store.url,
        store_patience=context.writer.store.patience,
        claim=context.writer.claim,
        output=ArtifactRef(stage=context.writer.stage, key=context.writer.key),
        sequences=ArtifactRef(stage=sequences.manifest.stage, key=sequences.manifest.key),
        sequences_digest=sequences.content_digest,
        tokenizer_digest=tokenizer.content_digest,
        vocab_size=tokenizer.counts["vocab_size"],
        config=config,
        engine=execution.engine,
        device=execution.device,
        processes=execution.processes,
        threads=execution.threads or max(1, usable_cores() // execution.processes),
        wandb=execution.wandb,
        checkpoints=checkpoints,
        folder=str(context.writer.scratch() / "trainer"),
    )


def check_execution(config: TrainConfig, execution: Execution) -> None:
    """Raise InputError unless the engine can run this config on this number of processes."""
    execution.engine.check(execution.processes, execution.device)
    if config.global_batch_size % (config.micro_batch_size * execution.processes):
        raise InputError(
            f"global_batch_size must be a multiple of micro_batch_size times processes, found "
            f"{config.global_batch_size} for {config.micro_batch_size} times {execution.processes}; "
            f"change one of the three"
        )


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def report_training(final: Part, report: Part | None, context: StageContext) -> None:
    """Attach the trainer's reports to the artifact and show their summary."""
    if report is None:
        log.warning("the metrics of this training are damaged or lost; its weights are complete")
        return
    # The files lie in the store already; naming them in the manifest makes them reports.
    context.reports.extend(report.files)
    metrics = next(file for file in report.files if file.role == METRICS_LOG)
    records = [json.loads(line) for line in context.writer.open(metrics).read_text().splitlines()]
    context.table("Training", [summary(final, records)])


def summary(final: Part, records: Sequence[JsonDict]) -> JsonDict:
    """Return the row that people look for first."""
    losses = [record for record in records if "loss" in record]
    validation = [record["val_loss"] for record in records if "val_loss" in record]
    seconds = losses[-1]["seconds"]
    return {
        "parameters": final.counts["parameters"],
        "steps": final.counts["steps"],
        "tokens": final.counts["tokens"],
        "first loss": round(losses[0]["loss"], 4),
        "last loss": round(losses[-1]["loss"], 4),
        "validation loss": round(validation[-1], 4) if validation else "not measured",
        "tokens/s": round(final.counts["tokens"] / seconds) if seconds else 0,
        "seconds": round(seconds, 1),
    }
