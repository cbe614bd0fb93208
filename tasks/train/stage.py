"""Train: packed sequences + tokenizer -> model weights.

Input   sequences  packed rows of tokens (storage.tokens), splits `train` and `val`
        tokenizer  for the size of the vocabulary
Output  final      roles `weights` (model.safetensors) and `model-config`
        reports    metrics.jsonl, engine.json
Rerun   continues from the newest intact checkpoint, a part `step-000100` that goes when `final` is there.
"""

from model.training.config import TrainConfig
from storage.registry import LazyFunction
from tasks.core.stage import Stage

STAGE = Stage(
    name="train",
    version=2,  # 2: families of models, documents isolated, parameters named as in transformers
    config=TrainConfig,
    build=LazyFunction("tasks.train.build:train_model"),
    inputs={"sequences": "pack", "tokenizer": "train-tokenizer"},
)
