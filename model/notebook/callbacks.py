"""What may happen between the steps and epochs of `model.notebook.fit.fit`.

The callbacks here hold settings only and read the histories, so one object may be used in several fits.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from model.layers.language_model import LanguageModel
from model.notebook.files import check_path, save
from model.training.config import TrainConfig
from model.training.schedules.cosine import learning_rate


@dataclass
class FitState:
    """Where a fit stands, and in the end what it returns. Callbacks may change `learning_rate` and `stop`."""

    model: LanguageModel = field(repr=False)
    num_epochs: int
    learning_rate: float
    """Of the next step."""
    epoch: int = 0
    """Epochs that are complete, validation included."""
    step: int = 0
    """Updates that are done."""
    train_losses: list[float] = field(default_factory=list)
    """Mean cross entropy per token of each epoch in nats, while the model learned: with dropout, of each batch
    before its update."""
    valid_losses: list[float] = field(default_factory=list)
    """The same on the validation data after each epoch, without dropout; empty without such data."""
    step_losses: list[float] = field(default_factory=list, repr=False)
    """Mean cross entropy per token of each step in nats."""
    stop: bool = False
    """Set by a callback to end after this epoch."""

    @property
    def watched_losses(self) -> list[float]:
        """The validation losses, or without validation data the training losses."""
        return self.valid_losses or self.train_losses


class Callback:
    """Does nothing; override what is needed."""

    def before_step(self, state: FitState) -> None:
        """Called before each update, the model in training mode."""

    def after_epoch(self, state: FitState) -> None:
        """Called after each epoch and its validation, the model in eval mode."""


class EarlyStopping(Callback):
    """Ends the fit when the watched loss has not improved by more than `min_delta` nats for `patience` epochs.

    The model keeps its last weights; a `CheckpointCallback` keeps the best ones, for `model.notebook.files.load`.
    """

    def __init__(self, patience: int = 3, min_delta: float = 0.0) -> None:
        if patience < 1 or not min_delta >= 0:
            raise ValueError(
                f"patience must be 1 epoch or more and min_delta not negative, found {patience} and {min_delta}"
            )
        self.patience, self.min_delta = patience, min_delta

    def after_epoch(self, state: FitState) -> None:
        """Count the epochs since the last improvement."""
        best, waited = math.inf, 0
        for loss in state.watched_losses:
            best, waited = (loss, 0) if loss < best - self.min_delta else (best, waited + 1)
        state.stop = state.stop or waited >= self.patience


class LearningRateSchedule(Callback):
    """Sets the learning rate of every step to `rate(step)`, steps counted from 1.

    Raises: ValueError for what is no function, such as a scheduler of torch: it steers an optimizer of its own.
    """

    def __init__(self, rate: Callable[[int], float]) -> None:
        if not callable(rate):
            raise ValueError(
                f"rate must be a function from the step, counted from 1, to its learning rate, found "
                f"{type(rate).__name__}; try LearningRateSchedule.cosine(1e-3, max_steps=1000)"
            )
        self.rate = rate

    @classmethod
    def cosine(cls, peak: float, max_steps: int, warmup_steps: int = 0) -> Self:
        """Return the pipeline's schedule, which stays at its end, a tenth of the peak, after `max_steps`.

        See `model.training.schedules.cosine.learning_rate`.

        Raises: ValueError for settings that `TrainConfig` refuses.
        """
        config = TrainConfig(learning_rate=peak, max_steps=max_steps, warmup_steps=warmup_steps)
        return cls(lambda step: learning_rate(config, min(step, max_steps)))

    def before_step(self, state: FitState) -> None:
        """Set the rate of the coming step."""
        state.learning_rate = self.rate(state.step + 1)


class CheckpointCallback(Callback):
    """Saves the model after an epoch, with `best_only` when the watched loss is the lowest of this fit so far.

    The file replaces the one before; its folder is made. Raises: ValueError unless it is a `.safetensors` file.
    """

    def __init__(self, path: str | Path, *, best_only: bool = True) -> None:
        self.path, self.best_only = check_path(path), best_only

    def after_epoch(self, state: FitState) -> None:
        """Save the model; see `model.notebook.files.save`."""
        *before, newest = state.watched_losses
        if not self.best_only or newest < min(before, default=math.inf):
            save(state.model, self.path)
