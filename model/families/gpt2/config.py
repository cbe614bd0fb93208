"""The shape of a GPT-2."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from model.families.base import ModelConfig, ModelShape


class GPT2Shape(ModelShape):
    """GPT-2 as published: learned positions, LayerNorm, GELU, biases, the embedding as output head."""

    learned_positions: ClassVar[bool] = True

    family: Literal["gpt2"] = "gpt2"
    n_layers: int = Field(ge=1)
    """Blocks of attention and feed-forward."""
    n_heads: int = Field(ge=1)
    """Heads of one attention layer."""
    d_model: int = Field(ge=2)
    """Width of the residual stream; the feed-forward blocks are four times as wide."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Part of the activations that is left out in training; 0.1 as published, 0 for a corpus read once."""
    norm_eps: float = Field(default=1e-5, gt=0)
    """Added to the variance in LayerNorm."""

    @property
    def mixes_rows(self) -> bool:
        """With dropout: what is left out is drawn for a whole micro-batch."""
        return self.dropout > 0

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.d_model // self.n_heads

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        if self.d_model % self.n_heads:
            raise ValueError(
                f"d_model must be a multiple of n_heads, found {self.d_model} and {self.n_heads}; "
                f"try d_model={-(-self.d_model // self.n_heads) * self.n_heads}"
            )
        return self


class GPT2Config(GPT2Shape, ModelConfig):
    """A GPT-2 that can be built."""
