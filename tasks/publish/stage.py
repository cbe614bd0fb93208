"""Publish: weights + tokenizer + evaluation -> a Hugging Face folder; see `tasks.publish.build`."""

from storage.registry import LazyFunction
from tasks.core.stage import Stage
from tasks.publish.config import FOLDER, PublishConfig

STAGE = Stage(
    name="publish",
    # 2: forms by family, special tokens never generated; 3: whether heads are trained; 4: inputs by content;
    # 5: every baseline and the warnings of the evaluation in the card
    version=5,
    config=PublishConfig,
    build=LazyFunction("tasks.publish.build:publish_model"),
    inputs={"model": "train", "tokenizer": "train-tokenizer", "evaluation": "evaluate"},
    quotes_inputs=True,
    highlight=True,
    result=FOLDER,
)
