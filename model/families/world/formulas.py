"""A world model on paper. Letters: S superblocks, 8 S layers."""

from model.families.formulas import Formulas, swiglu_parameters
from model.families.world.config import WorldConfig
from model.families.world.pattern import PATTERN

DELTA_CHUNK = 64
"""Tokens that the parallel form of Gated DeltaNet takes at once."""

AROUND = 5
"""Rows of the layer table around the layers: token embedding, rotary positions, final norm, classification heads,
output head."""


class WorldFormulas(Formulas):
    """Numbers of a world model."""

    def __init__(self, config: WorldConfig) -> None:
        self.config = config
        self.layers, self.width = config.n_layers, config.d_model
        self.attention_layers = config.n_superblocks * PATTERN.count("A")
        self.delta_layers = config.n_superblocks * PATTERN.count("D")
        self.query_width = config.n_heads * config.head_dim
        self.kv_width = config.n_kv_heads * config.head_dim
        self.conv_channels = 2 * config.n_key_heads * config.key_dim + config.n_value_heads * config.value_dim

    def parameters_by_kind(self) -> dict[str, int]:
        """Return the parameters by what they are for."""
        config, width, layers = self.config, self.width, self.layers
        value_width = config.n_value_heads * config.value_dim
        delta_net = (
            width * (self.conv_channels + value_width)  # q, k, v and the output gate z
            + 2 * width * config.n_value_heads  # write strength and decay
            + config.conv_taps * self.conv_channels
            + 2 * config.n_value_heads  # A_log, dt_bias
            + config.value_dim  # gated norm
            + value_width * width
        )
        attention = width * (3 * self.query_width + 2 * self.kv_width) + 2 * config.head_dim
        return {
            "embedding_and_head": config.vocab_size * width * (1 if config.tie_embeddings else 2),
            "delta_net": self.delta_layers * delta_net,
            "attention": self.attention_layers * attention,
            "experts": layers * config.num_experts * swiglu_parameters(width, config.d_expert),
            "shared_experts": layers * (swiglu_parameters(width, config.d_shared) + width),  # and its scalar gate
            "router": layers * width * config.num_experts,
            "norms": (2 * layers + 1) * width,
            "context": self._context(),
            "classification_heads": (width + 1) * (config.n_tones + config.n_fields),
        }

    def looked_up_parameters(self) -> int:
        """Return the embedding, unless it is the head too."""
        return 0 if self.config.tie_embeddings else self.config.vocab_size * self.width

    def unrouted_parameters(self) -> int:
        """Return the experts that a token is not sent to."""
        config = self.config
        unused = config.num_experts - config.top_k
        return self.layers * unused * swiglu_parameters(self.width, config.d_expert)

    def training_flops(self) -> dict[str, int]:
        """Return the FLOPs of Gated DeltaNet in its chunked form (arXiv:2412.06464, section 3.3).

        Forward, per value head with keys of k and values of v channels, in chunks of c tokens: triangles, 3 with
        keys and 2 with values, c (3 k + 2 v), and 3 products with the state, 6 k v; backward twice that.
        """
        key, value = self.config.key_dim, self.config.value_dim
        head = DELTA_CHUNK * (3 * key + 2 * value) + 6 * key * value
        return {"delta_net": 3 * self.delta_layers * self.config.n_value_heads * head}

    def state_bytes(self, bytes_per_value: int = 2) -> int:
        """Return DeltaNet's states in float32 and the convolutions' last inputs in `bytes_per_value`."""
        config = self.config
        state = config.n_value_heads * config.key_dim * config.value_dim * 4
        taps = (config.conv_taps - 1) * self.conv_channels * bytes_per_value
        return self.delta_layers * (state + taps)

    def table_layers(self) -> int:
        """Return the layers and the rows around them."""
        return self.layers + AROUND

    def layer_groups(self) -> dict[str, int]:
        """Return the superblocks."""
        return {"superblocks": self.config.n_superblocks}

    def _context(self) -> int:
        config, width, rank = self.config, self.width, self.config.context_rank
        if rank == 0:
            return 0
        scorer = width + width * rank + 2 * rank + 2  # norm, down, score with bias
        gains = 2 * self.attention_layers * config.n_heads + self.delta_layers * config.n_value_heads
        return config.n_superblocks * scorer + gains
