"""Checkpoints: everything that the rest of the training depends on, as safetensors and JSON.

A checkpoint is a committed part of the artifact that is being trained. It holds full tensors by parameter name and
nothing of the engine, so another engine or another number of processes continues it. Nothing is ever unpickled.
"""

import json
import logging
import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from model.export.saving import save_tensors, save_weights
from model.pretrained.weights import WEIGHTS
from model.training.config import CHECKPOINT_PREFIX, METRICS_LOG
from model.training.job import TrainingJob
from model.training.model_state import MOMENTS, ModelState
from storage.artifacts.pending import keep_pending
from storage.artifacts.records import JsonDict
from storage.artifacts.writer import ArtifactWriter
from storage.errors import CorruptFileError, InputError

log = logging.getLogger(__name__)

FORMAT = 1


@dataclass(frozen=True)
class Progress:
    """How far a training is."""

    step: int = 0
    """Updates done."""
    tokens: int = 0
    """Targets learned from."""
    seconds: float = 0.0
    """Time spent, over all attempts."""
    losses: tuple[float, ...] = ()
    """Losses of the steps since the last line of metrics."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read back."""

    progress: Progress
    model: ModelState
    random: JsonDict
    metrics: list[str]
    """The lines of metrics.jsonl up to here."""


def checkpoint_name(step: int) -> str:
    """Return the part name of the checkpoint after `step` updates; names sort by step."""
    return f"{CHECKPOINT_PREFIX}{step:06d}"


def save_checkpoint(
    writer: ArtifactWriter, job: TrainingJob, progress: Progress, model: ModelState, metrics: list[str]
) -> None:
    """Write a checkpoint to this machine's disk, from where it is committed."""
    folder = writer.scratch()
    files = {
        WEIGHTS: folder / "weights.safetensors",
        "optimizer": folder / "optimizer.safetensors",
        "state": folder / "state.json",
        "metrics": folder / METRICS_LOG,
    }
    save_weights(model.weights, files[WEIGHTS])
    moments = {
        f"{moment}.{name}": tensor.contiguous()
        for moment in MOMENTS
        for name, tensor in model.moments[moment].items()
    }
    save_tensors(moments, files["optimizer"])
    state = {
        "format": FORMAT,
        "identity": job.identity_digest(),
        "progress": vars(progress),
        "random": random_state(),
        "machine": machine(job),
    }
    files["state"].write_text(json.dumps(state))
    files["metrics"].write_text("".join(metrics))
    keep_pending(writer, checkpoint_name(progress.step), files)


def load_checkpoint(writer: ArtifactWriter, job: TrainingJob, name: str) -> Checkpoint:
    """Read a committed checkpoint, checksums verified.

    Raises: CorruptFileError if it is gone or damaged; InputError if it belongs to another training.
    """
    part = writer.part(name)
    if part is None:
        raise CorruptFileError(
            f"checkpoint {name} of {writer.stage}/{writer.key} must be readable, found none; run again"
        )
    paths = {file.role: writer.open(file) for file in part.files}
    state = json.loads(paths["state"].read_bytes())
    if state["format"] != FORMAT or state["identity"] != job.identity_digest():
        raise InputError(
            f"checkpoint {name} in {writer.folder} must be of this training (format {FORMAT}, identity "
            f"{job.identity_digest():.12}), found format {state['format']}, identity {state['identity']:.12}; "
            f"start anew with `pile run --force train`"
        )
    if state["machine"] != machine(job):
        log.warning(
            "continuing on %s a checkpoint from %s: sums are taken in another order, so the last digits may "
            "differ from those of an undisturbed run",
            machine(job),
            state["machine"],
        )
    optimizer = load_file(paths["optimizer"])
    progress = Progress(**{**state["progress"], "losses": tuple(state["progress"]["losses"])})
    moments = {
        moment: {key.removeprefix(f"{moment}."): t for key, t in optimizer.items() if key.startswith(f"{moment}.")}
        for moment in MOMENTS
    }
    model = ModelState(progress.step, load_file(paths[WEIGHTS]), moments)
    return Checkpoint(progress, model, state["random"], paths["metrics"].read_text().splitlines(keepends=True))


def machine(job: TrainingJob) -> dict[str, Any]:
    """Return what decides the order of floating-point sums, and with it the last bits of a result."""
    return {
        "engine": job.engine.label(),
        "processes": job.processes,
        "threads": job.threads,
        "device": job.device,
        "torch": torch.__version__,
    }


def random_state() -> JsonDict:
    """Return the state of the random generators of this process, as JSON.

    What a model draws in a step and the order of the data are functions of the step; the state is for whatever
    else may draw, so that a resumed training still draws the same numbers.
    """
    version, numbers, gauss = random.getstate()
    legacy = np.random.get_state(legacy=False)  # noqa: NPY002 - the global generator is what is saved
    return {
        "python": [version, list(numbers), gauss],
        "numpy": {**legacy, "state": {"key": legacy["state"]["key"].tolist(), "pos": legacy["state"]["pos"]}},
        "torch": bytes(torch.get_rng_state().tolist()).hex(),
        "cuda": [bytes(state.tolist()).hex() for state in torch.cuda.get_rng_state_all()],
    }


def restore_random_state(state: JsonDict) -> None:
    """Set the random generators of this process to a saved state."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    key = np.array(state["numpy"]["state"]["key"], dtype=np.uint32)
    np.random.set_state({**state["numpy"], "state": {**state["numpy"]["state"], "key": key}})  # noqa: NPY002
    torch.set_rng_state(_byte_tensor(state["torch"]))
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([_byte_tensor(text) for text in state["cuda"]])


def _byte_tensor(text: str) -> torch.Tensor:
    return torch.tensor(list(bytes.fromhex(text)), dtype=torch.uint8)
