"""Evaluate: weights + held-out documents -> bits per byte, samples, report; see `tasks.evaluate.build`."""

from storage.registry import LazyFunction
from tasks.core.stage import Stage
from tasks.evaluate.config import EvaluateConfig
from tasks.evaluate.foresee import check_held_out

STAGE = Stage(
    name="evaluate",
    # 2: zstd without --long and xz without -e; 3: tokens drawn by inverse CDF, heads, context layer;
    # 4: baselines that learn from training text, interval, warnings
    version=4,
    config=EvaluateConfig,
    build=LazyFunction("tasks.evaluate.build:evaluate_model"),
    inputs={"model": "train", "tokenizer": "train-tokenizer", "corpus": "dedup"},
    foresee=check_held_out,
    highlight=True,
)
