"""Which architecture a model is published as, and which one a folder names: all families are asked."""

from typing import Any

from model.export.architecture import Architecture
from model.families.base import ModelConfig
from model.families.registry import FAMILIES, family_of
from storage.errors import InputError


def architecture_for(config: ModelConfig) -> Architecture[Any]:
    """Return how a model is published. Raises: InputError if its family knows no way."""
    return family_of(config).architecture(config)


def architecture_of_type(model_type: Any) -> Architecture[Any]:
    """Return the architecture that a config.json names. Raises: InputError if no family has it."""
    known = [architecture for _, family in FAMILIES.members() for architecture in family.architectures()]
    for architecture in known:
        if architecture.model_type == model_type:
            return architecture
    raise InputError(
        f"model_type must be one of {', '.join(one.model_type for one in known)}, found {model_type!r}; "
        f"no family of this package can hold that model"
    )
