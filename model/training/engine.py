"""What the training loop needs from an engine, and the choice of one.

An engine owns the model, the optimizer and the processes. The loop owns the data order, the learning rate, the
checkpoints and the log, so that every engine trains the same model: in float32 the cross entropy of an update
agrees to 1e-6, however it is cut into micro-batches and spread over processes. A world model's auxiliary losses
are means over a micro-batch, so that its training depends, a little, on how large one is; see
`model.training.objective`.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

import torch
from torch import Tensor, nn

from model.device import choose_device
from model.training.config import TrainConfig, TrainingJob
from storage.probes import Probes

if TYPE_CHECKING:
    from model.training.objective import Objective

MOMENTS = ("exp_avg", "exp_avg_sq")
"""AdamW's two running means of a parameter, by torch's names."""

GAIN_RATE = 10.0
"""Factor on the learning rate of the context layer's gains."""


@dataclass(frozen=True)
class ModelState:
    """Everything that AdamW needs to go on, as full float32 tensors by parameter name, in host memory."""

    step: int
    weights: dict[str, Tensor]
    """Parameters, and the buffers that belong to a trained model."""
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
    documents: Tensor | None = None
    """Number of the document in its sequence that each input belongs to; None lets tokens see other documents."""
    probes: Probes | None = None
    """The probe tokens in the data, if it has any."""
    labels: Tensor | None = None
    """Class at each probe token among the inputs, NO_LABEL elsewhere; None if the data has no probe tokens."""
    tone_labels: int = 0
    """Tone probes with a label."""
    field_labels: int = 0
    """Field probes with a label."""


@dataclass(frozen=True)
class Totals:
    """What the losses of one update count, over all its micro-batches and processes."""

    tokens: float
    tone_labels: float = 0.0
    field_labels: float = 0.0


class Engine(Protocol):
    """Computes losses, gradients and updates. Calls marked (all) must be made by all processes together."""

    rank: int
    world: int
    device: torch.device

    def backward(self, batch: Batch, totals: Totals) -> Tensor:
        """Add the gradient of this batch's share of the update's loss; return its summed cross entropy (all)."""

    def step(self, learning_rate: float) -> Tensor:
        """Sum and clip the gradients, update, forget them; return their L2 norm before clipping (all)."""

    def evaluate(self, batch: Batch) -> Tensor:
        """Return the summed cross entropy of a batch of this process, without gradient (all)."""

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


def open_engine(job: TrainingJob, objective: "Objective", resume: ModelState | None) -> Engine:
    """Return the engine of the job, around a model that already has its weights.

    Raises: InputError if this machine cannot run it.
    """
    if job.engine == "deepspeed":
        # Without it DeepSpeed takes a GPU that it finds, whatever the job says.
        os.environ["DS_ACCELERATOR"] = choose_device(job.device).type
        from model.training.deepspeed_engine import DeepSpeedEngine  # noqa: PLC0415 - seconds, and optional

        return DeepSpeedEngine(job, objective, resume)
    from model.training.local_engine import LocalEngine  # noqa: PLC0415 - it imports this module

    return LocalEngine(objective, choose_device(job.device), resume)


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """Return AdamW that decays matrices and leaves biases, gains of norms and constants of decay alone.

    The gains of the context layer start at zero with tiny gradients, so they learn ten times as fast.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        is_gain = name.rpartition(".")[2].startswith("gain_")
        decay = config.weight_decay if parameter.ndim >= 2 and not is_gain else 0.0
        groups.setdefault((decay, GAIN_RATE if is_gain else 1.0), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "weight_decay": decay, "rate_scale": scale}
            for (decay, scale), parameters in groups.items()
        ],
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        foreach=True,
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Set the rate of the next update in all groups, each by its own scale."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["rate_scale"]


def model_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and persistent buffers of a whole model, in host memory where they are."""
    return {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}


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
