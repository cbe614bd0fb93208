"""The model families. Importing it loads no torch, so that `pile plan` and recipes stay quick.

A new family is a folder here with an object `FAMILY`, and a line below; or an entry point of the group
`pile_pipeline.families` in another package.
"""

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from model.families.base import Family, ModelConfig, ModelShape
from storage.registry import Registry

if TYPE_CHECKING:
    from model.layers.language_model import LanguageModel

FAMILIES: Registry[Family[Any]] = Registry(
    "model family",
    "pile_pipeline.families",
    {
        "gpt2": "model.families.gpt2.family:FAMILY",
        "rope": "model.families.rope.family:FAMILY",
        "world": "model.families.world.family:FAMILY",
    },
)

if TYPE_CHECKING:
    AnyShape = ModelShape
    AnyConfig = ModelConfig
else:
    # Pydantic chooses by the field `family`; type checkers know what all share.
    _MEMBERS = [family for _, family in FAMILIES.members()]
    AnyShape = Annotated[reduce(or_, (family.shape for family in _MEMBERS)), Field(discriminator="family")]
    AnyConfig = Annotated[reduce(or_, (family.config for family in _MEMBERS)), Field(discriminator="family")]


def family_of(shape: ModelShape) -> Family[Any]:
    """Return the family of a shape or a config. Raises: InputError if it is not installed."""
    return FAMILIES.get(shape.family)


def sized(shape: ModelShape, vocab_size: int, max_seq_len: int) -> ModelConfig:
    """Return the model config of a shape."""
    fields: dict[str, Any] = {**dict(shape), "vocab_size": vocab_size, "max_seq_len": max_seq_len}
    config: ModelConfig = family_of(shape).config.model_validate(fields)
    return config


def build_model(config: ModelConfig) -> "LanguageModel":
    """Return a new model with random weights that follow from `torch.manual_seed`."""
    return family_of(config).build(config)
