"""Publish: weights + tokenizer + evaluation -> a Hugging Face folder; see `tasks.publish.build`."""

from storage.registry import LazyFunction
from tasks.core.stage import Stage
from tasks.publish.config import PublishConfig

STAGE = Stage(
    name="publish",
    version=3,  # 2: forms by family, special tokens never generated; 3: whether heads are trained
    config=PublishConfig,
    build=LazyFunction("tasks.publish.build:publish_model"),
    inputs={"model": "train", "tokenizer": "train-tokenizer", "evaluation": "evaluate"},
    highlight=True,
    result="huggingface",
)
