"""The learning rate against torch's own schedulers."""

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

from model.training.config import TrainConfig
from model.training.schedules.cosine import learning_rate


def torch_learning_rates(config: TrainConfig) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=config.learning_rate)
    cosine = CosineAnnealingLR(
        optimizer,
        T_max=config.max_steps - config.warmup_steps,
        eta_min=config.learning_rate * config.min_learning_rate_fraction,
    )
    schedule: SequentialLR | CosineAnnealingLR = cosine
    if config.warmup_steps > 1:
        start = 1 / config.warmup_steps
        warmup = LinearLR(optimizer, start_factor=start, total_iters=config.warmup_steps - 1)
        schedule = SequentialLR(optimizer, [warmup, cosine], milestones=[config.warmup_steps - 1])
    rates = []
    for _ in range(config.max_steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.parametrize(("max_steps", "warmup_steps", "fraction"), [(50, 10, 0.1), (7, 2, 0.0), (20, 1, 1.0)])
def test_learning_rate_at_every_step_is_that_of_torch_schedulers(
    max_steps: int, warmup_steps: int, fraction: float
) -> None:
    config = TrainConfig(max_steps=max_steps, warmup_steps=warmup_steps, min_learning_rate_fraction=fraction)
    ours = [learning_rate(config, step) for step in range(1, max_steps + 1)]
    assert ours == pytest.approx(torch_learning_rates(config), rel=1e-6, abs=1e-12)


def test_learning_rate_without_warmup_only_falls() -> None:
    config = TrainConfig(max_steps=9, warmup_steps=0, learning_rate=1.0, min_learning_rate_fraction=0.25)
    rates = [learning_rate(config, step) for step in range(1, 10)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] < 1.0
    assert rates[-1] == 0.25
