"""Plain torch in one process: CPU, one GPU, or Apple's MPS."""

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from model.device import choose_device
from model.training.config import TrainingJob
from model.training.engine import (
    Batch,
    ModelState,
    adamw_moments,
    batch_loss,
    build_optimizer,
    restore_adamw,
)


class LocalEngine:
    """The reference engine: what the others must agree with."""

    rank = 0
    world = 1

    def __init__(self, job: TrainingJob, model: nn.Module, resume: ModelState | None) -> None:
        self.device = choose_device(job.device)
        self.model = model.to(self.device)
        self.max_grad_norm = job.config.max_grad_norm
        self.optimizer = build_optimizer(self.model, job.config)
        if resume is not None:
            restore_adamw(self.model, self.optimizer, resume)

    def backward(self, batch: Batch, scale: float) -> Tensor:
        """Add the gradient of `scale` times the summed loss; return the summed loss."""
        loss = batch_loss(self.model, batch)
        (loss * scale).backward()
        return loss.detach()

    def step(self, learning_rate: float) -> Tensor:
        """Clip, update, forget the gradients; return their norm before clipping."""
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.max_grad_norm, foreach=True)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        return norm.detach()

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> Tensor:
        """Return the summed loss."""
        return batch_loss(self.model, batch)

    def total(self, values: Sequence[float]) -> list[float]:
        """Return the values: there is one process."""
        return list(values)

    def state(self, step: int) -> ModelState:
        """Return the state; the tensors are the live ones on CPU, so it must be saved before the next step."""
        weights = {name: p.detach().cpu() for name, p in self.model.named_parameters()}
        return ModelState(step, weights, adamw_moments(self.model, self.optimizer))

    def settings(self) -> dict[str, Any]:
        """Return nothing: all is in the job."""
        return {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass
