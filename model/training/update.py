"""One update of a model from its micro-batches: what the training loop and `model.notebook.fit` repeat.

Calls must be made by all processes of a training together.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.training.batch import Batch, Totals
from model.training.engines.base import Engine
from model.training.objective import Objective
from model.training.schedules.cosine import learning_rate


@dataclass(frozen=True)
class Update:
    """What a step gave, still on the device: reading it there and then would make the device wait."""

    step: int
    loss: Tensor
    """Cross entropy summed over the targets of this process."""
    tokens: float
    """Targets of all processes."""
    grad_norm: Tensor


def update(
    engine: Engine,
    objective: Objective,
    step: int,
    batches: Sequence[Batch],
    totals: Totals,
    rate: float | None = None,
) -> Update:
    """Do the update that completes `step`, at the configured learning rate unless `rate` is given."""
    # What a model draws in a step, such as dropout, follows from the step: a resumed training draws the same.
    torch.manual_seed(step_seed(objective.config.seed, step, engine.rank))
    # What a loss samples is the same for all micro-batches and processes, however many there are.
    objective.before_step(step_seed(objective.config.seed, step), batches[0].inputs.shape[1])
    # Every target weighs the same, whichever micro-batch or process it is in.
    losses = [engine.backward(batch, totals) for batch in batches]
    grad_norm = engine.step(learning_rate(objective.config, step) if rate is None else rate)
    objective.after_step(engine.total, step)
    return Update(step, torch.stack(losses).sum(), totals.tokens, grad_norm)


def mean_loss(engine: Engine, batches: Iterable[Batch]) -> float:
    """Return the mean cross entropy of the targets of all processes in nats; NaN without any."""
    summed, tokens = 0.0, 0.0
    for batch in batches:
        summed += float(engine.evaluate(batch))
        tokens += batch.tokens
    summed, tokens = engine.total([summed, tokens])
    return summed / tokens if tokens else float("nan")


def count(batches: Sequence[Batch]) -> list[float]:
    """Return what the losses of some micro-batches count, in the order of `Totals`."""
    sums = (
        sum(batch.tokens for batch in batches),
        sum(len(batch.inputs) for batch in batches),
        sum(batch.tone_labels for batch in batches),
        sum(batch.field_labels for batch in batches),
    )
    return [float(value) for value in sums]


def step_seed(seed: int, step: int, rank: int | None = None) -> int:
    """Return the seed of what a process draws in a step; without a rank of what all draw alike."""
    own = "" if rank is None else f" {rank}"
    return int.from_bytes(hashlib.sha256(f"{seed} {step}{own}".encode()).digest()[:7], "big")
