"""The shape of a rotary decoder."""

from typing import Literal, Self

from pydantic import Field, model_validator

from model.families.base import ModelConfig, ModelShape, check_shared_heads


class RopeShape(ModelShape):
    """A decoder with rotary positions: Llama's block with `swiglu`, GPT-NeoX's with `gelu`."""

    family: Literal["rope"] = "rope"
    n_layers: int = Field(default=4, ge=1)
    """Blocks of attention and feed-forward."""
    n_heads: int = Field(default=6, ge=1)
    """Query heads of one attention layer."""
    n_kv_heads: int = Field(default=2, ge=1)
    """Key/value heads of one attention layer; `n_heads` is plain multi-head attention, fewer are shared."""
    d_model: int = Field(default=192, ge=2)
    """Width of the residual stream."""
    d_ff: int = Field(default=512, ge=1)
    """Width inside the feed-forward block; 8/3 of `d_model` gives SwiGLU the parameters of a 4x GELU."""
    feed_forward: Literal["swiglu", "gelu"] = "swiglu"
    """`swiglu`: RMSNorm, SwiGLU, no biases (Llama). `gelu`: LayerNorm, GELU, biases (GPT-NeoX)."""
    rope_theta: float = Field(default=10_000.0, gt=1)
    """Base of the rotary wave lengths; larger for longer sequences."""
    norm_eps: float = Field(default=1e-5, gt=0)
    """Added to the mean square, or the variance, in the norms."""
    tie_embeddings: bool = True
    """Use the token embedding as output head too; saves `vocab_size * d_model` parameters."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Part of the activations that is left out in training; helps when a small corpus is read many times."""

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
        if self.d_model % self.n_heads or self.head_dim % 2:
            raise ValueError(
                f"d_model must be n_heads times an even head width (rotary pairs), found d_model={self.d_model} "
                f"and n_heads={self.n_heads}; "
                f"try d_model={self.n_heads * max(2, self.head_dim + self.head_dim % 2)}"
            )
        check_shared_heads(self.n_heads, self.n_kv_heads)
        if self.feed_forward == "gelu" and self.n_kv_heads != self.n_heads:
            raise ValueError(
                f"n_kv_heads must equal n_heads with feed_forward='gelu' (GPT-NeoX shares no heads), found "
                f"{self.n_kv_heads} and {self.n_heads}; set n_kv_heads={self.n_heads} or feed_forward='swiglu'"
            )
        return self


class RopeConfig(RopeShape, ModelConfig):
    """A model of the rope family that can be built."""
