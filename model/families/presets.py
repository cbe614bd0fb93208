"""Named models of all families. A preset is a full config; a recipe takes its shape, the rest from the data."""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from model.families.base import DataSizes, ModelConfig, ModelShape
from model.families.registry import FAMILIES, AnyShape
from storage.config import Config
from storage.suggestions import did_you_mean

DEFAULT = "demo"
"""The preset whose fields a recipe changes that names neither preset nor family."""


def all_presets() -> dict[str, ModelConfig]:
    """Return the presets of all families, no two of which have one name."""
    return {name: preset for _, family in FAMILIES.members() for name, preset in family.presets.items()}


PRESETS: Mapping[str, ModelConfig] = all_presets()


def find_preset(name: str) -> ModelConfig:
    """Return a preset. Raises: ValueError that lists the names."""
    if name not in PRESETS:
        raise ValueError(
            f"a model must be one of {', '.join(PRESETS)}, found {name!r}{did_you_mean(name, PRESETS)}"
        )
    return PRESETS[name]


def preset_shape(name: str) -> ModelShape:
    """Return the shape of a preset, for a recipe. Raises: ValueError that lists the names."""
    shape: ModelShape = TypeAdapter(AnyShape).validate_python(shape_fields(name))
    return shape


def shape_fields(value: Any) -> Any:
    """Return the fields of a shape for what a recipe may write: a preset's name, or fields on top of a preset.

    `"world-1m"`, `{"preset": "world-1m", "top_k": 2}` and `{"n_layers": 8}` (on top of DEFAULT) are all shapes.

    Raises: ValueError for what is neither, an unknown preset, or a family that is not the preset's.
    """
    if isinstance(value, Config):
        return value
    if isinstance(value, str):
        value = {"preset": value}
    if not isinstance(value, Mapping):
        raise ValueError(
            f"a model must be the name of a preset ({', '.join(PRESETS)}) or the fields of one, "
            f"found {json.dumps(value)[:200]}"
        )
    name = value.get("preset", DEFAULT if "family" not in value else None)
    if name is None:
        return dict(value)
    if not isinstance(name, str):
        raise ValueError(
            f"preset must be the name of a model, one of {', '.join(PRESETS)}, found {json.dumps(name)[:200]}"
        )
    preset = {field: setting for field, setting in find_preset(name) if field not in DataSizes.model_fields}
    family = value.get("family", preset["family"])
    if family != preset["family"]:
        raise ValueError(f"family must be {preset['family']}, as preset {name} says, found {family!r:.200}")
    return {**preset, **{field: setting for field, setting in value.items() if field != "preset"}}
