"""The shapes of the three model families. Importing it loads no torch, so that `pile plan` and recipes stay quick.

A shape is what a recipe chooses. Vocabulary and length follow from tokenizer and packed sequences; with them a
shape becomes a model config, the description of a model that can be built.
"""

from typing import Annotated, Any

from pydantic import Field

from model.families.gpt2.config import GPT2Config, GPT2Shape
from model.families.rope.config import RopeConfig, RopeShape
from model.families.world.config import WorldConfig, WorldShape

ModelShape = Annotated[GPT2Shape | RopeShape | WorldShape, Field(discriminator="family")]
ModelConfig = Annotated[GPT2Config | RopeConfig | WorldConfig, Field(discriminator="family")]

CONFIGS: dict[str, type[GPT2Config | RopeConfig | WorldConfig]] = {
    "gpt2": GPT2Config,
    "rope": RopeConfig,
    "world": WorldConfig,
}


def sized(
    shape: GPT2Shape | RopeShape | WorldShape, vocab_size: int, max_seq_len: int
) -> GPT2Config | RopeConfig | WorldConfig:
    """Return the model config of a shape."""
    fields: dict[str, Any] = {**dict(shape), "vocab_size": vocab_size, "max_seq_len": max_seq_len}
    return CONFIGS[shape.family].model_validate(fields)
