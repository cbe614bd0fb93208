"""What a training engine is: its options, which a recipe chooses, and the engine at work.

Importing this loads no torch: recipes and `pile plan` read the options.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, Self

from storage.config import Config

if TYPE_CHECKING:
    from types import TracebackType

    import torch
    from torch import Tensor

    from model.training.batch import Batch, Totals
    from model.training.model_state import ModelState
    from model.training.objective import Objective


class EngineConfig(Config):
    """The options of an engine, under its name: what is registered in `model.training.engines.registry`.

    In a recipe `execution.engine` is the name, or the name and the fields of this class. None of it is part of an
    artifact's key, since every engine trains the same model. The class is light; `open` loads what is heavy.
    """

    name: str
    """A Literal of the name that the class is registered under."""

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """Return the options that differ enough to be tested each; each has a label of its own."""
        return (cls.model_validate({}),)

    def check(self, processes: int, device: str) -> None:
        """Raise InputError unless this engine can train in that many processes on `auto`, `cpu`, `mps` or `cuda`.

        Called before any work. That the device exists is checked elsewhere.
        """

    def label(self) -> str:
        """Name all options that decide in which order numbers are summed, and so the last bits of a result.

        Those of its examples that are not the default are among them, with their values.

        Checkpoints hold it: whoever continues one under another label is warned.
        """
        return self.name

    def open(self, objective: Objective, device: torch.device, folder: str, resume: ModelState | None) -> Engine:
        """Return the engine around an objective whose model has its weights on the CPU.

        Called in each process, with RANK and WORLD_SIZE in the environment if torchrun started it, before
        anything else has used the device. In `folder`, on this machine, processes may find each other. `resume`
        holds the optimizer's moments; the weights of the model are already its own.

        Raises: InputError if it cannot work on this device, as `check` does: `auto` is known only here.
        """
        raise NotImplementedError


class Engine(Protocol):
    """Computes losses, gradients and updates: owns the model, the optimizer and the processes.

    The loop owns the data order, the learning rate, the checkpoints and the log, so that every engine trains the
    same model: in float32 the cross entropy of an update agrees with plain torch to 1e-6, however it is cut into
    micro-batches and spread over processes. What is computed is `objective(batch, totals)`, whose result is this
    micro-batch's share of the update's loss; shares are summed, never averaged.

    The optimizer is that of `model.training.optimizers`, with the gradient's norm over all parameters clipped to
    `max_grad_norm` first. A training that is continued from its `state` by the same engine on as many processes
    gives the same bits as one that was not; by another engine, the same losses to 1e-6.

    Calls marked (all) must be made by all processes together. Leaving the context ends the processes' group, and
    an exception goes on as it is.
    """

    rank: int
    world: int
    device: torch.device

    def backward(self, batch: Batch, totals: Totals) -> Tensor:
        """Add the gradient of this batch's share of the update's loss; return its summed cross entropy (all)."""

    def step(self, learning_rate: float) -> Tensor:
        """Sum and clip the gradients, update, forget them; return their L2 norm before clipping (all)."""

    def evaluate(self, batch: Batch) -> Tensor:
        """Return the summed cross entropy of a batch of this process, in eval mode (all).

        No gradient is computed and nothing changes: the model is in training mode afterwards.
        """

    def total(self, values: Sequence[float]) -> list[float]:
        """Sum each value over the processes, in float64 (all)."""

    def state(self, step: int) -> ModelState:
        """Return the state after `step` updates, full tensors in host memory (all); meant for rank 0."""

    def settings(self) -> dict[str, Any]:
        """Return what a reader of the report may want to know about the engine, as JSON."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
