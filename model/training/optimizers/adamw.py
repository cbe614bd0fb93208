"""AdamW with our parameter groups, and its state by parameter name."""

import torch
from torch import Tensor, nn

from model.layers.language_model import LanguageModel
from model.training.config import TrainConfig
from model.training.model_state import MOMENTS, ModelState


def build_optimizer(model: LanguageModel, config: TrainConfig) -> torch.optim.AdamW:
    """Return AdamW that treats each parameter as the model's family says."""
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "weight_decay": config.weight_decay if options.decays else 0.0,
                "rate_scale": options.rate,
            }
            for options, parameters in model.parameter_groups().items()
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
    """Return the moments of an optimizer whose parameters are those of the model, whole tensors on every rank."""
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
