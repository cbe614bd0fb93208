"""The learning rate as a pure function of the step."""

import math

from model.training.config import TrainConfig


def learning_rate(config: TrainConfig, step: int) -> float:
    """Return the learning rate of the update that completes `step` (1 .. max_steps).

    Rises linearly to the peak at step `warmup_steps`, then falls along half a cosine to
    `min_learning_rate_fraction` of the peak at the last step. Source: SGDR, arXiv:1608.03983, eq. 5.
    """
    if step < config.warmup_steps:
        return config.learning_rate * step / config.warmup_steps
    progress = (step - config.warmup_steps) / (config.max_steps - config.warmup_steps)
    lowest = config.learning_rate * config.min_learning_rate_fraction
    return lowest + (config.learning_rate - lowest) * 0.5 * (1 + math.cos(math.pi * progress))


def balance_rate(config: TrainConfig, step: int) -> float:
    """Return the rate at which experts' loads are evened out after `step`: constant, at the end down to 0.

    It falls over the last twentieth of the steps.

    Source: auxiliary-loss-free balancing, arXiv:2408.15664; the end as in DeepSeek-V3, arXiv:2412.19437, 4.2.
    """
    left = (config.max_steps - step) / max(1, config.max_steps // 20)
    return config.expert_bias_rate * min(1.0, left)
