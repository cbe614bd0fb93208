"""The shape of a world model."""

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from model.families.base import ModelConfig, ModelShape, check_shared_heads
from model.families.world.pattern import PATTERN


class WorldShape(ModelShape):
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

    def classes(self) -> dict[str, int]:
        """Return the classes of the heads for tone and field."""
        return {"tone": self.n_tones, "field": self.n_fields} if self.n_tones else {}

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
    def mixes_rows(self) -> bool:
        """With the router of Qwen3-Next: its balance loss counts the experts' load over a micro-batch."""
        return self.router == "softmax_aux"

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
        check_shared_heads(self.n_heads, self.n_kv_heads)
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


class WorldConfig(WorldShape, ModelConfig):
    """A model of the world family that can be built."""
