"""Train: packed sequences + tokenizer -> model weights.

Input   sequences  packed rows of tokens (storage.formats.packed), splits `train` and `val`
        tokenizer  for the size of the vocabulary
Output  final      roles `weights` (model.safetensors) and `model-config`
        reports    metrics.jsonl, engine.json
Rerun   continues from the newest intact checkpoint, a part `step-000100` that goes when `final` is there.
"""

from collections.abc import Sequence

from model.training.config import CHECKPOINT_PREFIX, FINAL, TrainConfig
from storage.artifacts.records import JsonDict
from storage.registry import LazyFunction
from tasks.core.stage import Stage
from tasks.labels.classes import CLASSES


def check_classes(config: TrainConfig) -> None:
    """Raise ValueError unless the model's heads have as many classes as the labels know."""
    for kind, found in config.model.classes().items():
        known = len(CLASSES.get(kind, ()))
        if found != known:
            raise ValueError(
                f"train.model.n_{kind}s must be {known}, the {kind}s that labels know, or 0 together with the "
                f"other heads; found {found}"
            )


def describe_attempt(config: JsonDict, parts: Sequence[str]) -> str:
    """Say which step the newest checkpoint of an unfinished training holds."""
    if FINAL in parts:
        return "all steps done"
    steps = [int(part.removeprefix(CHECKPOINT_PREFIX)) for part in parts if part.startswith(CHECKPOINT_PREFIX)]
    return f"step {max(steps):,} of {config['max_steps']:,}" if steps else "no checkpoint yet"


STAGE = Stage(
    name="train",
    # 2: families of models, documents isolated, parameters named as in transformers; 3: auxiliary losses are means
    # over the rows of an update, whatever its micro-batches
    version=3,
    config=TrainConfig,
    build=LazyFunction("tasks.train.build:train_model"),
    inputs={"sequences": "pack", "tokenizer": "train-tokenizer"},
    check=check_classes,
    describe_attempt=describe_attempt,
    highlight=True,
)
