"""Callbacks of `fit`: when they stop, which rates they set, and what they save."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.families.registry import build_model
from model.families.rope.config import RopeConfig
from model.layers.language_model import LanguageModel
from model.notebook.callbacks import Callback, CheckpointCallback, EarlyStopping, FitState, LearningRateSchedule
from model.notebook.files import load
from model.notebook.fit import fit
from storage.errors import InputError

CONFIG = RopeConfig(n_layers=1, n_heads=2, n_kv_heads=1, d_model=8, d_ff=12, vocab_size=32, max_seq_len=16)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def build() -> LanguageModel:
    torch.manual_seed(1)
    return build_model(CONFIG)


def ids(rows: int = 2, seed: int = 0) -> Tensor:
    return torch.randint(0, 32, (rows, 9), generator=torch.Generator().manual_seed(seed))


def state_after(losses: list[float], model: LanguageModel | None = None, validated: bool = True) -> FitState:
    state = FitState(model or build(), num_epochs=99, learning_rate=1e-3)
    state.train_losses = [9.0 - epoch for epoch in range(len(losses))] if validated else losses
    state.valid_losses = losses if validated else []
    state.epoch = len(losses)
    return state


def epochs_until_stop(callback: EarlyStopping, losses: list[float], validated: bool = True) -> int | None:
    for epoch in range(1, len(losses) + 1):
        state = state_after(losses[:epoch], validated=validated)
        callback.after_epoch(state)
        if state.stop:
            return epoch
    return None


STOPS: dict[str, tuple[int, float, list[float], int | None]] = {
    "always-better": (1, 0.0, [5.0, 4.0, 3.0, 2.0], None),
    "first-worse": (1, 0.0, [5.0, 6.0, 4.0], 2),
    "equal-is-no-improvement": (1, 0.0, [5.0, 5.0], 2),
    "second-worse-in-a-row": (2, 0.0, [5.0, 6.0, 7.0, 1.0], 3),
    "better-in-between-counts-anew": (2, 0.0, [5.0, 6.0, 4.0, 4.5, 4.2], 5),
    "better-than-before-but-not-than-best": (3, 0.0, [3.0, 6.0, 5.0, 4.0], 4),
    "too-small-a-step": (2, 0.5, [5.0, 4.8, 4.6], 3),
    "small-steps-add-up": (2, 0.5, [5.0, 4.8, 4.4, 4.2, 4.1], 5),
    "not-yet": (3, 0.0, [5.0, 6.0, 6.0], None),
}


@pytest.mark.parametrize(("patience", "min_delta", "losses", "last"), STOPS.values(), ids=STOPS)
def test_early_stopping_counts_epochs_without_improvement(
    patience: int, min_delta: float, losses: list[float], last: int | None
) -> None:
    callback = EarlyStopping(patience, min_delta)
    assert epochs_until_stop(callback, losses) == last
    assert epochs_until_stop(callback, losses) == last, "an object may be used again"
    assert epochs_until_stop(callback, losses, validated=False) == last, "without validation: the training loss"


def overfitting() -> tuple[Tensor, Tensor]:
    """Texts to learn by heart, and others that agree with them in part: better at first, then worse."""
    train = ids()
    valid = train.clone()
    valid[:, 3::3] = (valid[:, 3::3] + 7) % 32
    return train, valid


def test_early_stopping_ends_a_fit_and_leaves_the_last_weights() -> None:
    train, valid = overfitting()
    stopping = EarlyStopping(patience=2)
    model = build()
    state = fit(model, [train], [valid], num_epochs=200, learning_rate=3e-2, callbacks=[stopping], device="cpu")
    assert state.stop
    assert state.epoch == len(state.train_losses) == len(state.valid_losses) < 200
    *before, one, two = state.valid_losses
    assert min(before) <= min(one, two)
    with torch.inference_mode():
        loss = F.cross_entropy(model(valid[:, :-1]).flatten(0, 1), valid[:, 1:].flatten())
    assert two == pytest.approx(float(loss), rel=1e-4)

    again = fit(model, [train], [valid], num_epochs=200, learning_rate=3e-2, callbacks=[stopping], device="cpu")
    assert again.epoch >= 2, "the epochs of the first fit do not count"


@pytest.mark.parametrize("settings", [{"patience": 0}, {"min_delta": -0.1}, {"min_delta": math.nan}], ids=str)
def test_early_stopping_refuses_settings_that_cannot_be(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        EarlyStopping(**settings)


def test_schedule_sets_the_rate_of_every_step() -> None:
    rates = [3e-2, 0.0, 1e-2, 2e-3, 5e-2]
    batches = [ids(seed=seed) for seed in range(5)]
    model = build()
    reference = copy.deepcopy(model)

    fit(
        model,
        batches,
        learning_rate=123.0,
        callbacks=[LearningRateSchedule(lambda step: rates[step - 1])],
        weight_decay=0.0,
        device="cpu",
    )

    optimizer = torch.optim.AdamW(reference.parameters(), betas=(0.9, 0.95), weight_decay=0.0)
    for rate, batch in zip(rates, batches, strict=True):
        optimizer.zero_grad()
        F.cross_entropy(reference(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten()).backward()
        nn.utils.clip_grad_norm_(reference.parameters(), 1.0)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
    for name, value in reference.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=1e-4, atol=1e-5)


def test_cosine_schedule_equals_that_of_torch_and_then_stays() -> None:
    schedule = LearningRateSchedule.cosine(0.5, max_steps=30, warmup_steps=5)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    rise = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1e-9, total_iters=5)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=25, eta_min=0.05)
    both = torch.optim.lr_scheduler.SequentialLR(optimizer, [rise, fall], milestones=[5])
    state = state_after([])
    for step in range(40):
        if step < 30:
            optimizer.step()
            both.step()
        state.step = step
        schedule.before_step(state)
        assert state.learning_rate == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-6), step


def test_schedule_refuses_a_scheduler_of_torch() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))])
    scheduler: Any = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    with pytest.raises(ValueError, match="CosineAnnealingLR"):
        LearningRateSchedule(scheduler)


@pytest.mark.parametrize("rate", [-1e-3, math.nan, math.inf])
def test_a_rate_that_cannot_be_ends_the_fit_before_the_step(rate: float) -> None:
    model = build()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(InputError, match=f"learning_rate .* {rate} for step 1"):
        fit(model, [ids()], callbacks=[LearningRateSchedule(lambda step: rate)], device="cpu")
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("best_only", "losses", "saved"),
    [(True, [5.0, 6.0, 4.0, 4.0, 3.0], [1, 3, 5]), (False, [5.0, 6.0, 4.0, 4.0], [1, 2, 3, 4])],
    ids=["best-only", "every-epoch"],
)
def test_checkpoint_is_saved_when_it_should(
    tmp_path: Path, best_only: bool, losses: list[float], saved: list[int]
) -> None:
    path = tmp_path / "model.safetensors"
    callback = CheckpointCallback(path, best_only=best_only)
    found = []
    for epoch in range(1, len(losses) + 1):
        callback.after_epoch(state_after(losses[:epoch]))
        if path.exists():
            found.append(epoch)
            path.unlink()
    assert found == saved


def test_checkpoint_holds_the_best_epoch_in_a_folder_that_was_missing(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "one" / "best.safetensors"
    train, valid = overfitting()
    at_epochs: list[LanguageModel] = []

    class Keep(Callback):
        def after_epoch(self, state: FitState) -> None:
            at_epochs.append(copy.deepcopy(state.model))

    callbacks = [CheckpointCallback(str(path)), Keep()]
    state = fit(build(), [train], [valid], num_epochs=40, learning_rate=3e-2, callbacks=callbacks, device="cpu")

    best = state.valid_losses.index(min(state.valid_losses))
    assert 0 < best < 39, "the case is one in which the model first gets better, then worse"
    with torch.inference_mode():
        assert torch.equal(load(path)(ids(3)), at_epochs[best](ids(3)))
    assert [file.name for file in path.parent.iterdir()] == ["best.safetensors"]


@pytest.mark.parametrize("name", ["model.pth", "model", "model.safetensors.gz"])
def test_checkpoint_refuses_another_format_before_the_fit(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="safetensors"):
        CheckpointCallback(tmp_path / name)
