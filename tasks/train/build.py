"""How the stage `train` is built: a job for the trainer process, and what it leaves."""

import json
import logging
from collections.abc import Sequence

from model.training.config import CHECKPOINT_PREFIX, FINAL, METRICS_LOG, REPORT, TrainConfig
from model.training.job import ArtifactRef, TrainerStatus, TrainingJob
from storage.artifacts.pending import commit_pending, drop_pending, pending_parts
from storage.artifacts.records import JsonDict, Part
from storage.artifacts.store import Artifact
from storage.artifacts.writer import ArtifactWriter
from storage.errors import Fault, InputError
from tasks.core.context import StageContext
from tasks.core.cores import usable_cores
from tasks.core.execution import Execution
from tasks.train.process import failure, run_trainer

log = logging.getLogger(__name__)

MEMORY_SIGNS = ("OutOfMemoryError", "MemoryError", "out of memory", "can't allocate memory", "SIGKILL")
"""In what a trainer says of its end: torch on a GPU and on a CPU, Python, and a kill by the kernel."""


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
            raise out_of_memory(job, status, checkpoint_names(parts)) or failure(status)
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


def out_of_memory(job: TrainingJob, status: TrainerStatus, checkpoints: Sequence[str]) -> Fault | None:
    """Return the error for a trainer that memory did not suffice for, or that was killed as for that; else None.

    A Fault, not an InputError: another program may have had the memory, and a retry continues.
    """
    if status.state != "failed" or not any(sign in status.message for sign in MEMORY_SIGNS):
        return None
    config = job.config
    share = config.global_batch_size // job.processes
    smaller = max((size for size in range(1, config.micro_batch_size // 2 + 1) if share % size == 0), default=0)
    step = int(checkpoints[-1].removeprefix(CHECKPOINT_PREFIX)) if checkpoints else 0
    again = f"continues from step {step}" if step else "begins anew, since it had saved no checkpoint"
    if "micro_batch_size" not in config.outside_key():
        then = "the run then begins anew, since with this model the micro-batch decides the result"
    else:
        then = f"the run then {again}"
    advice = f"set train.micro_batch_size={smaller} (now {config.micro_batch_size}); {then}"
    if not smaller:
        advice = (
            "its micro_batch_size is 1 already: choose a smaller train.model or a shorter pack.sequence_length"
        )
    return Fault(
        f"the training must fit into memory, but {status.message}; if memory ran out, {advice}; else run "
        f"it again: it {again}"
    )


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
