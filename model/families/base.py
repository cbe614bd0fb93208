"""What the shapes of all families share."""

from pydantic import Field

from storage.config import Config


class Sized(Config):
    """What a shape takes from the data."""

    vocab_size: int = Field(ge=1)
    """Rows of the token embedding: the tokenizer's ids and some that pad."""
    max_seq_len: int = Field(ge=2)
    """Longest sequence in tokens that the model is trained on."""


def check_shared_heads(n_heads: int, n_kv_heads: int) -> None:
    """Raise ValueError unless every key/value head serves the same number of query heads."""
    if n_heads % n_kv_heads:
        raise ValueError(
            f"n_heads must be a multiple of n_kv_heads, found {n_heads} and {n_kv_heads}; "
            f"n_kv_heads={n_heads} shares nothing, n_kv_heads=1 shares most"
        )
