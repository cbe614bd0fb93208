"""A GPT-2 on paper."""

from model.families.formulas import Formulas, gelu_parameters
from model.families.gpt2.config import GPT2Config


class GPT2Formulas(Formulas):
    """Numbers of a GPT-2."""

    def __init__(self, config: GPT2Config) -> None:
        self.config = config
        self.layers = self.attention_layers = config.n_layers
        self.width = self.query_width = self.kv_width = config.d_model

    def parameters_by_kind(self) -> dict[str, int]:
        """Return the parameters by what they are for."""
        config, width, layers = self.config, self.width, self.layers
        return {
            "embedding_and_head": config.vocab_size * width,
            "positions": config.max_seq_len * width,
            "attention": layers * 4 * (width * width + width),
            "feed_forward": layers * gelu_parameters(width, 4 * width),
            "norms": (2 * layers + 1) * 2 * width,
        }

    def looked_up_parameters(self) -> int:
        """Return the learned positions."""
        return self.config.max_seq_len * self.width
