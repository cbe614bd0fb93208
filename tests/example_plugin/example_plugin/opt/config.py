"""What a recipe chooses of an OPT, and its numbers on paper."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from model.families.base import ModelConfig, ModelShape
from model.families.formulas import Formulas


class OPTShape(ModelShape):
    """OPT as published, in any size."""

    learned_positions: ClassVar[bool] = True

    family: Literal["opt"] = "opt"
    n_layers: int = Field(default=2, ge=1)
    """Blocks of attention and feed-forward."""
    n_heads: int = Field(default=4, ge=1)
    """Heads of one attention layer."""
    d_model: int = Field(default=64, ge=1)
    """Width of the residual stream; the feed-forward blocks are four times as wide."""

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        if self.d_model % self.n_heads:
            raise ValueError(f"d_model must be a multiple of n_heads, found {self.d_model} and {self.n_heads}")
        return self


class OPTConfig(OPTShape, ModelConfig):
    """An OPT that can be built."""


class OPTFormulas(Formulas):
    """Numbers of an OPT."""

    def __init__(self, config: OPTConfig) -> None:
        self.config = config
        self.layers = self.attention_layers = config.n_layers
        self.width = self.query_width = self.kv_width = config.d_model

    def parameters_by_kind(self) -> dict[str, int]:
        """Return the parameters by what they are for."""
        width = self.width
        return {
            "embedding_and_head": self.config.vocab_size * width,
            "positions": self.config.max_seq_len * width,
            "attention": self.layers * 4 * (width + 1) * width,
            "feed_forward": self.layers * (8 * width + 5) * width,
            "norms": (2 * self.layers + 1) * 2 * width,
        }

    def looked_up_parameters(self) -> int:
        """Return the learned positions."""
        return self.config.max_seq_len * self.width
