"""The three families by name: build a model from its config."""

from model.config import GPT2Config, RopeConfig, WorldConfig
from model.gpt2 import GPT2
from model.language_model import LanguageModel
from model.rope import RopeModel
from model.world.network import WorldModel


def build_model(config: GPT2Config | RopeConfig | WorldConfig) -> LanguageModel:
    """Return a new model with random weights that follow from `torch.manual_seed`."""
    if isinstance(config, GPT2Config):
        return GPT2(config)
    if isinstance(config, RopeConfig):
        return RopeModel(config)
    return WorldModel(config)
