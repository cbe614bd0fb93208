"""Configuration of the world model: a mixture-of-experts hybrid of Gated DeltaNet and gated attention."""

import math
from typing import ClassVar

from transformers import PreTrainedConfig

from model.families.world.pattern import PATTERN


class WorldConfig(PreTrainedConfig):
    """The shape of a world model and the ids of its special tokens."""

    model_type = "pile_world"
    attribute_map: ClassVar[dict[str, str]] = {
        "hidden_size": "d_model",
        "max_position_embeddings": "max_seq_len",
        "num_attention_heads": "n_heads",
        "num_experts_per_tok": "top_k",
        "num_hidden_layers": "n_layers",
        "num_key_value_heads": "n_kv_heads",
        "tie_word_embeddings": "tie_embeddings",
    }

    vocab_size: int = 1024
    """Rows of the token embedding."""
    max_seq_len: int = 256
    """Longest sequence in tokens that the model was trained on; rotary positions go on beyond it."""
    n_superblocks: int = 1
    """Superblocks of 8 sublayers, six of Gated DeltaNet and two of attention."""
    d_model: int = 64
    """Width of the residual stream."""
    n_heads: int = 4
    """Query heads of one attention layer."""
    n_kv_heads: int = 2
    """Key/value heads of one attention layer."""
    head_dim: int = 16
    """Width of one attention head."""
    n_key_heads: int = 2
    """Query and key heads of one DeltaNet layer."""
    key_dim: int = 16
    """Width of a DeltaNet key."""
    n_value_heads: int = 4
    """Value heads of one DeltaNet layer."""
    value_dim: int = 32
    """Width of a DeltaNet value."""
    num_experts: int = 16
    """Experts of one sublayer."""
    top_k: int = 3
    """Experts that work on a token."""
    d_expert: int = 32
    """Width inside an expert."""
    d_shared: int = 32
    """Width inside the expert that works on every token."""
    conv_taps: int = 4
    """Tokens that the convolution before DeltaNet sees."""
    rotary_fraction: float = 0.25
    """Part of a head's channels that is rotated by position."""
    rope_theta: float = 1e6
    """Base of the rotary wave lengths."""
    norm_eps: float = 1e-6
    """Added to the mean square in the norms."""
    tie_embeddings: bool = True
    """Whether the token embedding is the output head too."""
    allow_negative_eigenvalues: bool = False
    """Whether a DeltaNet state overwrites with up to twice the difference."""
    router: str = "sigmoid_bias"
    """How tokens choose experts, `sigmoid_bias` or `softmax_aux`."""
    route_scale: float = 0.0
    """Factor on the experts' sum; 0 means sqrt(top_k)."""
    context_rank: int = 0
    """Width of the Eisenhower scorer of each superblock; 0 without it."""
    context_window: int = 64
    """Distance in tokens up to which a token's use is urgent."""
    n_tones: int = 0
    """Classes of the tone head; 0 without it."""
    n_fields: int = 0
    """Classes of the scientific-field head; 0 without it."""
    classification_detach: bool = False
    """Whether the heads' losses were kept from changing the trunk."""
    bos_token_id: int | None = None
    """End of text, which also stands before every text."""
    eos_token_id: int | None = None
    """End of text."""
    pad_token_id: int | None = None
    """End of text, in its role as padding."""
    has_trained_heads: bool = False
    """Whether the heads were trained; only then `classify` answers."""
    tone_token_id: int | None = None
    """The probe at which the tone head reads."""
    field_token_id: int | None = None
    """The probe at which the field head reads."""
    tone_names: list[str] | None = None
    """Names of the tones, in the order of their numbers."""
    field_names: list[str] | None = None
    """Names of the fields, in the order of their numbers."""

    learned_positions: ClassVar[bool] = False
    """Rotary positions go on beyond `max_seq_len`."""

    def classes(self) -> dict[str, int]:
        """Return the classes of the heads for tone and field."""
        return {"tone": self.n_tones, "field": self.n_fields} if self.n_tones else {}

    @property
    def n_layers(self) -> int:
        """Sublayers in all."""
        return self.n_superblocks * len(PATTERN)

    @property
    def rotary_dim(self) -> int:
        """Channels of a head that are rotated."""
        return int(self.head_dim * self.rotary_fraction)

    @property
    def expert_scale(self) -> float:
        """The factor that `route_scale` stands for."""
        return self.route_scale or math.sqrt(self.top_k)
