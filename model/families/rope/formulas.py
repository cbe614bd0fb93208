"""A rotary decoder on paper."""

from model.families.formulas import Formulas, gelu_parameters, swiglu_parameters
from model.families.rope.config import RopeConfig


class RopeFormulas(Formulas):
    """Numbers of a model of the rope family."""

    def __init__(self, config: RopeConfig) -> None:
        self.config = config
        self.layers = self.attention_layers = config.n_layers
        self.width = config.d_model
        self.query_width = config.n_heads * config.head_dim
        self.kv_width = config.n_kv_heads * config.head_dim

    def parameters_by_kind(self) -> dict[str, int]:
        """Return the parameters by what they are for."""
        config, width, layers = self.config, self.width, self.layers
        attention, feed_forward = 2 * width * (width + self.kv_width), swiglu_parameters(width, config.d_ff)
        norm = width
        if config.feed_forward == "gelu":  # GPT-NeoX: biases everywhere but in the head
            attention, feed_forward, norm = attention + 4 * width, gelu_parameters(width, config.d_ff), 2 * width
        return {
            "embedding_and_head": config.vocab_size * width * (1 if config.tie_embeddings else 2),
            "attention": layers * attention,
            "feed_forward": layers * feed_forward,
            "norms": (2 * layers + 1) * norm,
        }

    def looked_up_parameters(self) -> int:
        """Return the embedding, unless it is the head too."""
        return 0 if self.config.tie_embeddings else self.config.vocab_size * self.width
