"""Plain torch in one process: CPU, one GPU, or Apple's MPS."""

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from model.training.batch import Batch, Totals
from model.training.model_state import ModelState, model_weights
from model.training.objective import Objective
from model.training.optimizers.adamw import adamw_moments, build_optimizer, restore_adamw, set_learning_rate


class LocalEngine:
    """The reference engine: what the others must agree with."""

    rank = 0
    world = 1

    def __init__(self, objective: Objective, device: torch.device, resume: ModelState | None = None) -> None:
        self.device = device
        self.objective = objective.to(device)
        self.model = objective.model
        self.max_grad_norm = objective.config.max_grad_norm
        self.optimizer = build_optimizer(self.model, objective.config)
        if resume is not None:
            restore_adamw(self.model, self.optimizer, resume)

    def backward(self, batch: Batch, totals: Totals) -> Tensor:
        """Add the gradient of this batch's share of the update's loss; return its summed cross entropy."""
        loss, summed = self.objective(batch, totals)
        loss.backward()
        return summed.detach()

    def step(self, learning_rate: float) -> Tensor:
        """Clip, update, forget the gradients; return their norm before clipping."""
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.max_grad_norm, foreach=True)
        set_learning_rate(self.optimizer, learning_rate)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return norm.detach()

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> Tensor:
        """Return the summed cross entropy."""
        self.objective.eval()
        _, summed = self.objective(batch)
        self.objective.train()
        return summed

    def total(self, values: Sequence[float]) -> list[float]:
        """Return the values: there is one process."""
        return list(values)

    def state(self, step: int) -> ModelState:
        """Return the state; the tensors are the live ones on CPU, so it must be saved before the next step."""
        return ModelState(step, model_weights(self.model), adamw_moments(self.model, self.optimizer))

    def settings(self) -> dict[str, Any]:
        """Return nothing: all is in the job."""
        return {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass
