"""Families that are none."""

from typing import Literal

from model.families.gpt2.config import GPT2Config, GPT2Shape
from model.families.gpt2.family import GPT2Family
from model.families.gpt2.presets import PRESETS

text = "a"


class Class(GPT2Family):
    name = "class"


class SamePresetShape(GPT2Shape):
    family: Literal["same-preset"] = "same-preset"  # type: ignore[assignment]


class SamePresetConfig(GPT2Config):
    family: Literal["same-preset"] = "same-preset"  # type: ignore[assignment]


class SamePreset(GPT2Family):
    name = "same-preset"
    shape = SamePresetShape
    config = SamePresetConfig
    presets = {
        "gpt2-tiny": SamePresetConfig.model_validate({**dict(PRESETS["gpt2-tiny"]), "family": "same-preset"})
    }
    tiny = {}


class OtherShape(GPT2Shape):
    family: Literal["other"] = "other"  # type: ignore[assignment]


class OtherFamily(GPT2Family):
    name = "other-family"
    shape = OtherShape


same_preset, other_family = SamePreset(), OtherFamily()
