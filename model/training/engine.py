"""What the training loop needs from an engine, and the choice of one.

An engine owns the model, the optimizer and the processes. The loop owns the data order, the learning rate, the
checkpoints and the log, so that every engine trains the same model; in float32 the losses agree to 1e-6.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from model.device import choose_device
from model.training.config import TrainConfig, TrainingJob
from model.transformer import sequence_loss

MOMENTS = ("exp_avg", "exp_avg_sq")
"""AdamW's two running means of a parameter, by torch's names."""


@dataclass(frozen=True)
class ModelState:
    """Everything that AdamW needs to go on, as full float32 tensors by parameter name, in host memory."""

    step: int
    weights: dict[str, Tensor]
    moments: dict[str, dict[str, Tensor]]
    """For each of MOMENTS, a tensor per parameter."""


@dataclass(frozen=True)
class Batch:
    """Sequences for one forward pass, all (B, T): each token of `inputs` is to predict the one in `targets`."""

    inputs: Tensor
    targets: Tensor
    mask: Tensor
    """False where nothing is to be learned: padding, and the first token of another document."""
    tokens: int
    """Targets that count."""


class Engine(Protocol):
    """Computes losses, gradients and updates. Calls marked (all) must be made by all processes together."""

    rank: int
    world: int
    device: torch.device

    def backward(self, batch: Batch, scale: float) -> Tensor:
        """Add the gradient of `scale` times the summed loss; return the summed loss of this process (all)."""

    def step(self, learning_rate: float) -> Tensor:
        """Sum and clip the gradients, update, forget them; return their L2 norm before clipping (all)."""

    def evaluate(self, batch: Batch) -> Tensor:
        """Return the summed loss of a batch of this process, without gradient (all)."""

    def total(self, values: Sequence[float]) -> list[float]:
        """Sum each value over the processes, in float64 (all)."""

    def state(self, step: int) -> ModelState:
        """Return the state after `step` updates (all); meant for the process of rank 0."""

    def settings(self) -> dict[str, Any]:
        """Return what a reader of the report may want to know about the engine, as JSON."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_engine(job: TrainingJob, model: nn.Module, resume: ModelState | None) -> Engine:
    """Return the engine of the job, around a model that already has its weights.

    Raises: InputError if this machine cannot run it.
    """
    if job.engine == "deepspeed":
        # Without it DeepSpeed takes a GPU that it finds, whatever the job says.
        os.environ["DS_ACCELERATOR"] = choose_device(job.device).type
        from model.training.deepspeed_engine import DeepSpeedEngine  # noqa: PLC0415 - seconds, and optional

        return DeepSpeedEngine(job, model, resume)
    from model.training.local_engine import LocalEngine  # noqa: PLC0415 - it imports this module

    return LocalEngine(job, model, resume)


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """Return AdamW that decays matrices and leaves norm gains alone."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(config.beta1, config.beta2), foreach=True)


def batch_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Return the summed cross entropy of a batch in nats."""
    loss, _ = sequence_loss(model(batch.inputs), batch.targets, batch.mask)
    return loss


def adamw_moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Tensor]]:
    """Return the moments of an optimizer whose parameters are those of the model."""
    return {
        moment: {name: optimizer.state[p][moment].detach().cpu() for name, p in model.named_parameters()}
        for moment in MOMENTS
    }


def restore_adamw(model: nn.Module, optimizer: torch.optim.Optimizer, resume: ModelState) -> None:
    """Give an optimizer, whose parameters are those of the model, the moments of a checkpoint."""
    for name, parameter in model.named_parameters():
        optimizer.state[parameter] = {"step": torch.tensor(float(resume.step))}
        for moment in MOMENTS:
            value = resume.moments[moment][name]
            optimizer.state[parameter][moment] = value.to(parameter.device, copy=True)
