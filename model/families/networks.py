"""The three families by name: build a model from its config."""

from model.families.gpt2.config import GPT2Config
from model.families.gpt2.network import GPT2
from model.families.rope.config import RopeConfig
from model.families.rope.network import RopeModel
from model.families.world.config import WorldConfig
from model.families.world.network import WorldModel
from model.layers.language_model import LanguageModel


def build_model(config: GPT2Config | RopeConfig | WorldConfig) -> LanguageModel:
    """Return a new model with random weights that follow from `torch.manual_seed`."""
    if isinstance(config, GPT2Config):
        return GPT2(config)
    if isinstance(config, RopeConfig):
        return RopeModel(config)
    return WorldModel(config)
