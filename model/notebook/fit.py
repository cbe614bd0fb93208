"""Train a model from a notebook: `fit(model, train_loader, valid_loader, num_epochs, learning_rate, callbacks)`.

A thin layer over the parts of the pipeline's training: the same objective, optimizer, update and engine. What it
leaves out is what a notebook does not need: artifacts, resuming, several processes.

Shapes: B sequences, T tokens.
"""

import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from model.layers.device import choose_device
from model.layers.language_model import LanguageModel
from model.notebook.callbacks import Callback, FitState
from model.notebook.files import check_model
from model.training.batch import Batch, Totals
from model.training.config import TrainConfig
from model.training.engines.base import Engine
from model.training.engines.registry import engine_config
from model.training.objective import Objective
from model.training.update import count, mean_loss, step_seed, update
from storage.errors import InputError


def fit(
    model: LanguageModel,
    train_loader: Iterable[Any],
    valid_loader: Iterable[Any] | None = None,
    num_epochs: int = 1,
    learning_rate: float = 1e-3,
    callbacks: Sequence[Callback] = (),
    *,
    weight_decay: float = 0.1,
    max_grad_norm: float = 1.0,
    seed: int = 0,
    device: Literal["auto", "cpu", "mps", "cuda"] = "auto",
) -> FitState:
    """Train `model` in place with AdamW and return the loss histories; one batch of the loader is one update.

    A batch is a tensor of ids (B, T + 1), each of which is to predict the next one; a pair (inputs, targets) of
    shape (B, T), with a negative target where nothing is to be predicted; or a `Batch`, for packed documents and
    probe tokens. In the first two every row is one document. A batch that predicts nothing is left out.

    The learning rate stays as it is unless a callback changes it. `seed` decides what is drawn: dropout, and the
    order of a shuffling DataLoader without a generator of its own. The global random state is left as it was, the
    model in eval mode on the device, also when the fit is interrupted: then it has what it learned so far.

    Raises: InputError for a batch of another kind, a loader without batches, a loader that can be read only once
        for several epochs, a loss or gradient that is not a finite number; ValueError for ids out of range.
    """
    check_model(model)
    _check_arguments(num_epochs, learning_rate, train_loader=train_loader, valid_loader=valid_loader)
    config = TrainConfig(
        # How long a notebook trains is not known before: the experts' bias keeps its rate, and `update` is told
        # the learning rate.
        max_steps=sys.maxsize,
        warmup_steps=0,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        max_grad_norm=max_grad_norm,
        seed=seed,
    )
    objective = Objective(model, config)
    state = FitState(model, num_epochs, learning_rate)
    opened = engine_config().open(objective, choose_device(device), folder="", resume=None)
    with opened as engine, _own_random_state(engine.device):
        model.zero_grad()  # what an interrupted fit or the user's own backward pass left
        try:
            while state.epoch < num_epochs and not state.stop:
                _train_epoch(state, engine, objective, train_loader, callbacks)
                if valid_loader is not None:
                    _validate(state, engine, valid_loader)
                state.epoch += 1
                model.eval()
                for callback in callbacks:
                    callback.after_epoch(state)
        finally:
            model.eval()
    return state


def _check_arguments(num_epochs: int, learning_rate: float, **loaders: Iterable[Any] | None) -> None:
    if num_epochs < 1 or not 0 < learning_rate < math.inf:
        raise InputError(
            f"num_epochs must be 1 or more and learning_rate positive, found {num_epochs} and {learning_rate}"
        )
    for name, loader in loaders.items():
        if num_epochs > 1 and isinstance(loader, Iterator):
            raise InputError(
                f"{name} must be readable in each of {num_epochs} epochs, found a {type(loader).__name__}, which "
                f"is used up by the first; give a list or a DataLoader"
            )


def to_batch(item: Any, model: LanguageModel, device: torch.device) -> Batch:
    """Return what a loader gave as a batch on the device; see `fit`. Raises: InputError, ValueError."""
    batch = item if isinstance(item, Batch) else _as_batch(item)
    # On a GPU ids out of range would end the process's use of the device.
    model.check_ids(batch.inputs)
    highest, vocab_size = int(batch.targets.max()), model.config.vocab_size
    if highest >= vocab_size:
        raise InputError(
            f"targets must be ids below {vocab_size}, or negative where nothing is to be predicted, found "
            f"{highest}; use the tokenizer that the model was trained with"
        )
    moved: dict[str, Any] = {
        name: value.to(device) for name, value in vars(batch).items() if isinstance(value, Tensor)
    }
    return replace(batch, **moved)


def _as_batch(item: Any) -> Batch:
    if isinstance(item, Sequence) and len(item) == 1:  # what a TensorDataset of one tensor gives
        (item,) = item
    if isinstance(item, Tensor) and item.dim() == 2 and item.shape[1] > 1:
        item = (item[:, :-1], item[:, 1:])
    if not (isinstance(item, Sequence) and len(item) == 2 and all(isinstance(part, Tensor) for part in item)):
        shape = f" of shape {tuple(item.shape)}" if isinstance(item, Tensor) else ""
        raise InputError(
            f"a batch must be a tensor of ids (B, T + 1), a pair (inputs, targets) of tensors or a Batch, found "
            f"{type(item).__name__}{shape}; group sequences with a DataLoader, or change its collate_fn"
        )
    if any(part.is_floating_point() for part in item):
        raise InputError(f"ids must be integers, found {[str(part.dtype) for part in item]}; use .long()")
    inputs, targets = (part.long() for part in item)
    if inputs.shape != targets.shape or inputs.dim() != 2:
        raise InputError(
            f"inputs and targets must both have the shape (B, T), found {tuple(inputs.shape)} and "
            f"{tuple(targets.shape)}; targets[:, t] is what follows inputs[:, t]"
        )
    mask = targets >= 0
    return Batch(inputs, targets, mask, int(mask.sum()))


def _train_epoch(
    state: FitState,
    engine: Engine,
    objective: Objective,
    loader: Iterable[Any],
    callbacks: Sequence[Callback],
) -> None:
    # Else the order of a shuffling loader would depend on what validation and callbacks drew.
    torch.manual_seed(step_seed(objective.config.seed, state.step, engine.rank))
    summed, tokens = 0.0, 0.0
    state.model.train()
    for item in loader:
        batch = to_batch(item, state.model, engine.device)
        totals = Totals(*count([batch]))
        if not totals.tokens:
            continue
        for callback in callbacks:
            callback.before_step(state)
        done = update(engine, objective, state.step + 1, [batch], totals, _learning_rate(state))
        loss, norm = float(done.loss), float(done.grad_norm)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise InputError(
                f"loss and gradient norm must stay finite numbers, found loss {loss / done.tokens} and norm "
                f"{norm} at step {done.step} (learning rate {state.learning_rate:.3g}); build or load the model "
                f"anew and lower learning_rate"
            )
        state.step = done.step
        state.step_losses.append(loss / done.tokens)
        summed, tokens = summed + loss, tokens + done.tokens
    if not tokens:
        raise InputError(
            f"train_loader must give a batch with something to predict, found none in epoch {state.epoch + 1}"
        )
    state.train_losses.append(summed / tokens)


def _validate(state: FitState, engine: Engine, loader: Iterable[Any]) -> None:
    loss = mean_loss(engine, (to_batch(item, state.model, engine.device) for item in loader))
    if not math.isfinite(loss):
        raise InputError(
            f"the validation loss must be a finite number, found {loss} after {state.step} steps; give "
            f"valid_loader batches with something to predict, or lower learning_rate"
        )
    state.valid_losses.append(loss)


def _learning_rate(state: FitState) -> float:
    if not 0 <= state.learning_rate < math.inf:
        raise InputError(
            f"a callback must set learning_rate to 0 or a positive number, found {state.learning_rate} for step "
            f"{state.step + 1}"
        )
    return state.learning_rate


def _own_random_state(device: torch.device) -> AbstractContextManager[None]:
    """Put the notebook's random state back in the end; on MPS only that of the CPU."""
    return torch.random.fork_rng([device] if device.type == "cuda" else [])
