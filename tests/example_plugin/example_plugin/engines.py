"""An engine for checks of precision: one process, in which gradients are summed over micro-batches in float64.

    pile run demo --set execution.engine=float64

The sum of many micro-batches then no longer loses what is small beside it. Weights and moments stay float32.
Torch is imported where it is used, since recipes load this file, too.
"""

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from model.training.engines.base import EngineConfig
from storage.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from model.training.batch import Batch, Totals
    from model.training.model_state import ModelState
    from model.training.objective import Objective


class Float64Config(EngineConfig):
    """Sums gradients in float64, on CPU or CUDA."""

    name: Literal["float64"] = "float64"

    def check(self, processes: int, device: str) -> None:
        """Refuse several processes, and Apple's GPUs, which know no float64."""
        if processes > 1 or device == "mps":
            raise InputError(
                f"the float64 engine trains in one process on cpu or cuda, found processes={processes} and "
                f"device {device!r}; use another engine or change them"
            )

    def open(
        self, objective: "Objective", device: "torch.device", folder: str, resume: "ModelState | None"
    ) -> "Float64Engine":
        """Return the engine."""
        self.check(1, device.type)
        return Float64Engine(objective, device, resume)


class Float64Engine:
    """The local engine's loop with sums of its own between `backward` and `step`."""

    rank = 0
    world = 1

    def __init__(self, objective: "Objective", device: "torch.device", resume: "ModelState | None") -> None:
        from model.training.optimizers.adamw import build_optimizer, restore_adamw

        self.device = device
        self.objective = objective.to(device)
        self.model = objective.model
        self.optimizer = build_optimizer(self.model, objective.config)
        self.sums: dict[str, Tensor] = {}
        if resume is not None:
            restore_adamw(self.model, self.optimizer, resume)

    def backward(self, batch: "Batch", totals: "Totals") -> "Tensor":
        """Compute the gradient of this batch alone and add it to the sums."""
        loss, summed = self.objective(batch, totals)
        loss.backward()
        for name, parameter in self.model.named_parameters():
            if parameter.grad is not None:
                gradient = parameter.grad.double()
                self.sums[name] = self.sums[name] + gradient if name in self.sums else gradient
                parameter.grad = None
        return summed.detach()

    def step(self, learning_rate: float) -> "Tensor":
        """Clip the sums, and update with them."""
        from torch.nn.utils import get_total_norm

        from model.training.optimizers.adamw import set_learning_rate

        norm = get_total_norm(self.sums.values())
        scale = (self.objective.config.max_grad_norm / (norm + 1e-6)).clamp(max=1.0)
        for name, parameter in self.model.named_parameters():
            if name in self.sums:
                parameter.grad = (self.sums[name] * scale).to(parameter.dtype)
        self.sums.clear()
        set_learning_rate(self.optimizer, learning_rate)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return norm

    def evaluate(self, batch: "Batch") -> "Tensor":
        """Return the summed cross entropy."""
        import torch

        self.objective.eval()
        with torch.no_grad():
            _, summed = self.objective(batch)
        self.objective.train()
        return summed

    def total(self, values: Sequence[float]) -> list[float]:
        """Return the values: there is one process."""
        return list(values)

    def state(self, step: int) -> "ModelState":
        """Return the state."""
        from model.training.model_state import ModelState, model_weights
        from model.training.optimizers.adamw import adamw_moments

        return ModelState(step, model_weights(self.model), adamw_moments(self.model, self.optimizer))

    def settings(self) -> dict[str, Any]:
        """Say in what the gradients are summed."""
        return {"gradient_sums": "float64"}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass
