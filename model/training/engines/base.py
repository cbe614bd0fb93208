"""What the training loop needs from an engine, and the choice of one.

An engine owns the model, the optimizer and the processes. The loop owns the data order, the learning rate, the
checkpoints and the log, so that every engine trains the same model: in float32 the cross entropy of an update
agrees to 1e-6, however it is cut into micro-batches and spread over processes. A world model's auxiliary losses
are means over a micro-batch, so that its training depends, a little, on how large one is; see
`model.training.objective`.
"""

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

import torch
from torch import Tensor

if TYPE_CHECKING:
    pass
from model.training.batch import Batch, Totals
from model.training.model_state import ModelState


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
