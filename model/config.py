"""The shapes of the three model families. Importing it loads no torch, so that `pile plan` and recipes stay quick.

A shape is what a recipe chooses. Vocabulary and length follow from tokenizer and packed sequences; with them a
shape becomes a model config, the description of a model that can be built.
"""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from model.world.pattern import PATTERN
from storage.config import Config


class Sized(Config):
    """What a shape takes from the data."""

    vocab_size: int = Field(ge=1)
    """Rows of the token embedding: the tokenizer's ids and some that pad."""
    max_seq_len: int = Field(ge=2)
    """Longest sequence in tokens that the model is trained on."""


class GPT2Shape(Config):
    """GPT-2 as published: learned positions, LayerNorm, GELU, biases, the embedding as output head."""

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


class RopeShape(Config):
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
        _check_shared_heads(self.n_heads, self.n_kv_heads)
        if self.feed_forward == "gelu" and self.n_kv_heads != self.n_heads:
            raise ValueError(
                f"n_kv_heads must equal n_heads with feed_forward='gelu' (GPT-NeoX shares no heads), found "
                f"{self.n_kv_heads} and {self.n_heads}; set n_kv_heads={self.n_heads} or feed_forward='swiglu'"
            )
        return self


class WorldShape(Config):
    """The world family: superblocks of Gated DeltaNet and gated attention, each followed by experts."""

    family: Literal["world"] = "world"
    n_superblocks: int = Field(ge=1)
    """Superblocks of 8 sublayers, six of Gated DeltaNet and two of attention."""
    d_model: int = Field(ge=2)
    """Width of the residual stream."""
    n_heads: int = Field(ge=1)
    """Query heads of one attention layer."""
    n_kv_heads: int = Field(ge=1)
    """Key/value heads of one attention layer, shared by groups of query heads."""
    head_dim: int = Field(ge=2)
    """Width of one attention head."""
    n_key_heads: int = Field(ge=1)
    """Query and key heads of one DeltaNet layer."""
    key_dim: int = Field(ge=1)
    """Width of a DeltaNet key."""
    n_value_heads: int = Field(ge=1)
    """Value heads of one DeltaNet layer, each with a state; a multiple of `n_key_heads`."""
    value_dim: int = Field(ge=1)
    """Width of a DeltaNet value."""
    num_experts: int = Field(ge=1)
    """Experts of one sublayer."""
    top_k: int = Field(ge=1)
    """Experts that work on a token."""
    d_expert: int = Field(ge=1)
    """Width inside an expert."""
    d_shared: int = Field(ge=1)
    """Width inside the expert that works on every token."""
    conv_taps: int = Field(default=4, ge=2)
    """Tokens that the convolution before DeltaNet sees, the current one included."""
    rotary_fraction: float = Field(default=0.25, gt=0, le=1)
    """Part of a head's channels that is rotated by position."""
    rope_theta: float = Field(default=1e6, gt=1)
    """Base of the rotary wave lengths."""
    norm_eps: float = Field(default=1e-6, gt=0)
    """Added to the mean square in the norms."""
    tie_embeddings: bool = True
    """Use the token embedding as output head too."""
    allow_negative_eigenvalues: bool = False
    """Let a DeltaNet state overwrite with up to twice the difference; Qwen3-Next has no such switch."""
    router: Literal["sigmoid_bias", "softmax_aux"] = "sigmoid_bias"
    """How tokens choose experts: balanced by a bias, or by an auxiliary loss as in Qwen3-Next."""
    route_scale: float = Field(default=0.0, ge=0)
    """Factor on the experts' sum; 0 means sqrt(top_k), which undoes the shrinking of an average."""
    context_rank: int = Field(default=0, ge=0)
    """Width of the Eisenhower scorer of each superblock; 0 leaves the context layer out."""
    context_window: int = Field(default=64, ge=1)
    """Distance in tokens up to which a token's use is urgent, beyond it important."""
    n_tones: int = Field(default=0, ge=0)
    """Classes of the tone head; 0 leaves it out."""
    n_fields: int = Field(default=0, ge=0)
    """Classes of the scientific-field head; 0 leaves it out."""
    classification_detach: bool = False
    """Keep the classification losses from changing the trunk: the heads become linear probes."""

    @property
    def n_layers(self) -> int:
        """Sublayers in all."""
        return self.n_superblocks * len(PATTERN)

    @property
    def rotary_dim(self) -> int:
        """Channels of a head that are rotated, an even number."""
        return int(self.head_dim * self.rotary_fraction)

    @property
    def expert_scale(self) -> float:
        """The factor that `route_scale` stands for."""
        return self.route_scale or math.sqrt(self.top_k)

    @property
    def is_hybrid(self) -> bool:
        """Whether Qwen3-Next can express it: no context layer, no heads, its router, its DeltaNet."""
        return (
            self.router == "softmax_aux"
            and not self.context_rank
            and not self.n_tones
            and not self.allow_negative_eigenvalues
        )

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        _check_shared_heads(self.n_heads, self.n_kv_heads)
        if self.rotary_dim < 2 or self.rotary_dim % 2:
            raise ValueError(
                f"head_dim times rotary_fraction must be an even number of channels, found {self.head_dim} times "
                f"{self.rotary_fraction}; try rotary_fraction={2 * max(1, self.rotary_dim // 2) / self.head_dim}"
            )
        if self.n_value_heads % self.n_key_heads:
            raise ValueError(
                f"n_value_heads must be a multiple of n_key_heads, found {self.n_value_heads} and "
                f"{self.n_key_heads}; try n_value_heads={self.n_key_heads}"
            )
        if self.top_k > self.num_experts:
            raise ValueError(
                f"top_k must be at most num_experts, found {self.top_k} of {self.num_experts}; lower top_k"
            )
        return self

    @model_validator(mode="after")
    def _check_rows(self) -> Self:
        for name, width in (("d_model", self.d_model), ("d_expert", self.d_expert)):
            if self.is_hybrid and width % 4:
                raise ValueError(
                    f"{name} must be a multiple of 4 in a model published as Qwen3-Next "
                    f"(router='softmax_aux', no context layer, no heads): transformers multiplies its experts in "
                    f"rows of 16 bytes, found {width}; try {name}={-(-width // 4) * 4}"
                )
        return self

    @model_validator(mode="after")
    def _check_probes(self) -> Self:
        if (self.n_tones == 0) != (self.n_fields == 0):
            raise ValueError(
                f"n_tones and n_fields must both be 0 or both be more, found {self.n_tones} and {self.n_fields}; "
                f"the two probe tokens always stand together"
            )
        return self


class GPT2Config(GPT2Shape, Sized):
    """A GPT-2 that can be built."""


class RopeConfig(RopeShape, Sized):
    """A model of the rope family that can be built."""


class WorldConfig(WorldShape, Sized):
    """A model of the world family that can be built."""


ModelShape = Annotated[GPT2Shape | RopeShape | WorldShape, Field(discriminator="family")]
ModelConfig = Annotated[GPT2Config | RopeConfig | WorldConfig, Field(discriminator="family")]

CONFIGS: dict[str, type[GPT2Config | RopeConfig | WorldConfig]] = {
    "gpt2": GPT2Config,
    "rope": RopeConfig,
    "world": WorldConfig,
}


def sized(
    shape: GPT2Shape | RopeShape | WorldShape, vocab_size: int, max_seq_len: int
) -> GPT2Config | RopeConfig | WorldConfig:
    """Return the model config of a shape."""
    fields: dict[str, Any] = {**dict(shape), "vocab_size": vocab_size, "max_seq_len": max_seq_len}
    return CONFIGS[shape.family].model_validate(fields)


def _check_shared_heads(n_heads: int, n_kv_heads: int) -> None:
    if n_heads % n_kv_heads:
        raise ValueError(
            f"n_heads must be a multiple of n_kv_heads, found {n_heads} and {n_kv_heads}; "
            f"n_kv_heads={n_heads} shares nothing, n_kv_heads=1 shares most"
        )
