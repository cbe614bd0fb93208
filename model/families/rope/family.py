"""The rope family: rotary decoders, Llama's and GPT-NeoX's."""

from typing import TYPE_CHECKING

from model.families.base import Family
from model.families.rope.config import RopeConfig, RopeShape
from model.families.rope.formulas import RopeFormulas
from model.families.rope.presets import PRESETS, TINY
from storage.registry import load

if TYPE_CHECKING:
    from model.export.architecture import Architecture
    from model.layers.language_model import LanguageModel

NETWORK = "model.families.rope.network:RopeModel"
ARCHITECTURES = "model.families.rope.export:ARCHITECTURES"


class RopeFamily(Family[RopeConfig]):
    """The member of the registry."""

    name = "rope"
    shape = RopeShape
    config = RopeConfig
    formulas = RopeFormulas
    presets = PRESETS
    tiny = TINY

    def build(self, config: RopeConfig) -> "LanguageModel":
        """Return a new model."""
        model: LanguageModel = load(NETWORK)(config)
        return model

    def architectures(self) -> "tuple[Architecture[RopeConfig], ...]":
        """Return the architectures of transformers."""
        found: tuple[Architecture[RopeConfig], ...] = load(ARCHITECTURES)
        return found


FAMILY = RopeFamily()
