"""Everything that an optimizer needs to go on, as full tensors by name."""

from dataclasses import dataclass

from torch import Tensor, nn

MOMENTS = ("exp_avg", "exp_avg_sq")
"""AdamW's two running means of a parameter, by torch's names."""


@dataclass(frozen=True)
class ModelState:
    """Everything that AdamW needs to go on, as full float32 tensors by parameter name, in host memory."""

    step: int
    weights: dict[str, Tensor]
    """Parameters, and the buffers that belong to a trained model."""
    moments: dict[str, dict[str, Tensor]]
    """For each of MOMENTS, a tensor per parameter."""


def model_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and persistent buffers of a whole model, in host memory where they are.

    An engine whose model holds parts of tensors gathers them first.
    """
    return {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
