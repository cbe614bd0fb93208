"""Evaluate: weights + held-out documents -> bits per byte, samples, report; see `tasks.evaluate.build`."""

from storage.registry import LazyFunction
from tasks.core.stage import Stage
from tasks.evaluate.config import EvaluateConfig
from tasks.evaluate.foresee import check_held_out

STAGE = Stage(
    name="evaluate",
    version=3,  # 2: zstd without --long and xz without -e; 3: tokens drawn by inverse CDF, heads, context layer
    config=EvaluateConfig,
    build=LazyFunction("tasks.evaluate.build:evaluate_model"),
    inputs={"model": "train", "tokenizer": "train-tokenizer", "corpus": "dedup"},
    foresee=check_held_out,
    highlight=True,
)
