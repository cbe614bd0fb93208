"""AdamW with our parameter groups, and its state by parameter name."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from model.training.config import TrainConfig

if TYPE_CHECKING:
    pass
from model.training.model_state import MOMENTS, ModelState

GAIN_RATE = 10.0
"""Factor on the learning rate of the context layer's gains."""


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
