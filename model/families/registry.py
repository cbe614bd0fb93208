"""The model families. Importing it loads no torch, so that `pile plan` and recipes stay quick.

A new family is a folder here with an object `FAMILY`, and a line below; or an entry point of the group
`pile_pipeline.families` in another package.
"""

from collections.abc import Iterable, Mapping
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from model.families.base import Family, ModelConfig, ModelShape
from storage.errors import InputError
from storage.member_checks import check_name, check_tag, check_version
from storage.registry import Registry

if TYPE_CHECKING:
    from model.layers.language_model import LanguageModel


def check_family(name: str, family: Any) -> None:
    """Raise InputError unless this is a family of that name, whose shape, config and presets are of it."""
    if not isinstance(family, Family):
        raise InputError(f"must be an object of a class that derives from Family, found {family!r:.200}")
    check_name(family.name, name)
    check_tag(family.shape, ModelShape, "family", name)
    check_tag(family.config, ModelConfig, "family", name)
    check_version(family.shape.family_version)
    if not callable(family.formulas):
        raise InputError(f"must have formulas, found {family.formulas!r:.200}")
    for presets in (family.presets, family.tiny):
        if not isinstance(presets, Mapping) or not all(
            isinstance(each, family.config) for each in presets.values()
        ):
            raise InputError(f"must have presets that are configs of the family by name, found {presets!r:.200}")


def preset_claims(family: Family[Any]) -> Iterable[str]:
    """Return the names that no other family may give to a preset."""
    return [f"the preset {name!r}" for name in family.presets]


FAMILIES: Registry[Family[Any]] = Registry(
    "model family",
    "pile_pipeline.families",
    {
        "gpt2": "model.families.gpt2.family:FAMILY",
        "rope": "model.families.rope.family:FAMILY",
        "world": "model.families.world.family:FAMILY",
    },
    check_family,
    preset_claims,
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
