"""Train: packed sequences + tokenizer -> model weights.

Input   sequences  packed rows of tokens (storage.tokens), splits `train` and `val`
        tokenizer  for the size of the vocabulary
Output  final      roles `weights` (model.safetensors) and `model-config`
        reports    metrics.jsonl, engine.json
Rerun   continues from the newest intact checkpoint, a part `step-000100` that goes when `final` is there.
"""

from model.families.world.config import WorldShape
from model.training.config import TrainConfig
from storage.registry import LazyFunction
from tasks.core.stage import Stage
from tasks.labels.field import FIELDS
from tasks.labels.tone import TONES


def check_classes(config: TrainConfig) -> None:
    """Raise ValueError unless the model's heads have as many classes as the labels know."""
    model = config.model
    if not isinstance(model, WorldShape) or not model.n_tones:
        return
    for kind, found, classes in (("tone", model.n_tones, TONES), ("field", model.n_fields, FIELDS)):
        if found != len(classes):
            other = "n_fields" if kind == "tone" else "n_tones"
            raise ValueError(
                f"train.model.n_{kind}s must be {len(classes)}, the {kind}s that labels know, or 0 together "
                f"with {other}=0; found {found}"
            )


STAGE = Stage(
    name="train",
    version=2,  # 2: families of models, documents isolated, parameters named as in transformers
    config=TrainConfig,
    build=LazyFunction("tasks.train.build:train_model"),
    inputs={"sequences": "pack", "tokenizer": "train-tokenizer"},
    check=check_classes,
    highlight=True,
)
