"""The shape of a model. Importing it loads no torch, so that `pile plan` and the recipes stay quick."""

from pydantic import Field, model_validator

from storage.config import Config


class ModelConfig(Config):
    """Size and constants of a decoder-only transformer, the fields of transformers' `LlamaConfig`."""

    vocab_size: int = Field(ge=1)
    """Number of different tokens, the special ones included; must be the tokenizer's."""
    n_layers: int = Field(ge=1)
    """Blocks of attention and feed-forward."""
    n_heads: int = Field(ge=1)
    """Query heads of one attention layer."""
    n_kv_heads: int = Field(ge=1)
    """Key/value heads of one attention layer; `n_heads` is plain multi-head attention, fewer are shared."""
    d_model: int = Field(ge=2)
    """Width of the residual stream."""
    d_ff: int = Field(ge=1)
    """Width inside the feed-forward block; 8/3 of `d_model` gives SwiGLU the parameters of a 4x MLP."""
    max_seq_len: int = Field(ge=2)
    """Longest sequence in tokens that the model is trained and used on."""
    rope_theta: float = Field(default=10_000.0, gt=1)
    """Base of the rotary wave lengths; larger for longer sequences."""
    norm_eps: float = Field(default=1e-5, gt=0)
    """Added to the mean square in RMSNorm."""
    tie_embeddings: bool = True
    """Use the token embedding as output head too; saves `vocab_size * d_model` parameters."""

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.d_model // self.n_heads

    @model_validator(mode="after")
    def _check_heads(self) -> "ModelConfig":
        if self.d_model % self.n_heads or self.head_dim % 2:
            raise ValueError(
                f"d_model must be n_heads times an even head width (rotary pairs), found d_model={self.d_model} "
                f"and n_heads={self.n_heads}; "
                f"try d_model={self.n_heads * max(2, self.head_dim + self.head_dim % 2)}"
            )
        if self.n_heads % self.n_kv_heads:
            raise ValueError(
                f"n_heads must be a multiple of n_kv_heads, found {self.n_heads} and {self.n_kv_heads}; "
                f"n_kv_heads={self.n_heads} shares nothing, n_kv_heads=1 shares most"
            )
        return self


def count_parameters(config: ModelConfig) -> int:
    """Return the number of parameters of a model without building it; a tied head counts once."""
    attention = config.d_model * config.head_dim * (2 * config.n_heads + 2 * config.n_kv_heads)
    feed_forward = 3 * config.d_model * config.d_ff
    layer = attention + feed_forward + 2 * config.d_model
    embeddings = config.vocab_size * config.d_model * (1 if config.tie_embeddings else 2)
    return embeddings + config.n_layers * layer + config.d_model
