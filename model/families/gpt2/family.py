"""The gpt2 family: GPT-2."""

from typing import TYPE_CHECKING

from model.families.base import Family
from model.families.gpt2.config import GPT2Config, GPT2Shape
from model.families.gpt2.formulas import GPT2Formulas
from model.families.gpt2.presets import PRESETS, TINY
from storage.registry import load

if TYPE_CHECKING:
    from model.export.architecture import Architecture
    from model.layers.language_model import LanguageModel

NETWORK = "model.families.gpt2.network:GPT2"
ARCHITECTURES = "model.families.gpt2.export:ARCHITECTURES"


class GPT2Family(Family[GPT2Config]):
    """The member of the registry."""

    name = "gpt2"
    shape = GPT2Shape
    config = GPT2Config
    formulas = GPT2Formulas
    presets = PRESETS
    tiny = TINY

    def build(self, config: GPT2Config) -> "LanguageModel":
        """Return a new model."""
        model: LanguageModel = load(NETWORK)(config)
        return model

    def architectures(self) -> "tuple[Architecture[GPT2Config], ...]":
        """Return the architectures of transformers."""
        found: tuple[Architecture[GPT2Config], ...] = load(ARCHITECTURES)
        return found


FAMILY = GPT2Family()
