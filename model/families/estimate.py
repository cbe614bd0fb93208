"""Numbers on paper: parameters, FLOPs and memory of a model in closed form, without building it. Loads no torch.

Letters in formulas: V vocabulary, T tokens of a sequence, C width of the residual stream, S superblocks of the
world family, 8 S its layers. Buffers (rotary tables, the bias of the router) are no parameters.
"""

from collections.abc import Mapping

from model.families.gpt2.config import GPT2Config
from model.families.registry import ModelConfig
from model.families.rope.config import RopeConfig
from model.families.world.config import WorldConfig
from model.families.world.pattern import PATTERN

DELTA_CHUNK = 64
"""Tokens that the parallel form of Gated DeltaNet takes at once."""

TRAINING_STATES: Mapping[str, tuple[int, int, int, int]] = {
    "mixed": (2, 2, 4, 8),
    "mixed-fp32-gradients": (2, 4, 4, 8),
    "float32": (4, 4, 0, 8),
    "mixed-8bit-adam": (2, 2, 4, 2),
    "bf16-stochastic-rounding": (2, 2, 0, 4),
}
"""Bytes per parameter of weights, gradients, float32 master weights and Adam's two moments, by way of training.

Source of `mixed`: ZeRO, arXiv:1910.02054, section 3.1.
"""


def parameter_split(config: ModelConfig) -> dict[str, int]:
    """Return the parameters by what they are for; a tied head counts once. The parts sum to the whole."""
    if isinstance(config, GPT2Config):
        return _gpt2_split(config)
    if isinstance(config, RopeConfig):
        return _rope_split(config)
    return _world_split(config)


def count_parameters(config: ModelConfig) -> int:
    """Return the number of parameters of a model."""
    return sum(parameter_split(config).values())


def count_active_parameters(config: ModelConfig) -> int:
    """Return the parameters that compute on one token: what its FLOPs follow from.

    All but the experts that a token is not sent to and the tables that are only looked up: the token embedding
    when it is not the head too, and learned positions. The head counts, as it is computed for every token.
    """
    idle = 0 if config.family == "gpt2" or config.tie_embeddings else config.vocab_size * config.d_model
    if isinstance(config, GPT2Config):
        idle += config.max_seq_len * config.d_model
    if isinstance(config, WorldConfig):
        idle += config.n_layers * (config.num_experts - config.top_k) * _swiglu(config.d_model, config.d_expert)
    return count_parameters(config) - idle


def training_flops_split(config: ModelConfig, sequence_length: int) -> dict[str, int]:
    """Return the FLOPs of forward and backward per token, by cause; a multiplication with addition is 2.

    `parameters`: 6 per active parameter (arXiv:2001.08361, section 2.1).
    `attention`: scores and weighted sum, 6 T H D per layer: half of arXiv:2204.02311, appendix B, whose 12 counts
    the keys that the causal mask hides, too. Masks between packed documents would save more.
    `delta_net`: the chunked form (arXiv:2412.06464, section 3.3). Forward, per value head with keys of k and
    values of v channels, in chunks of c tokens: triangles, 3 with keys and 2 with values, c (3 k + 2 v), and 3
    products with the state, 6 k v; backward twice that.
    Norms, gates, softmax and recomputed activations are left out, as in the usual definition of MFU.
    """
    split = {
        "parameters": 6 * count_active_parameters(config),
        "attention": 6 * _attention_layers(config) * config.n_heads * config.head_dim * sequence_length,
    }
    if isinstance(config, WorldConfig):
        key, value = config.key_dim, config.value_dim
        head = DELTA_CHUNK * (3 * key + 2 * value) + 6 * key * value
        split["delta_net"] = 3 * _delta_layers(config) * config.n_value_heads * head
    return split


def training_flops_per_token(config: ModelConfig, sequence_length: int) -> int:
    """Return the FLOPs of forward and backward per token in sequences of this length."""
    return sum(training_flops_split(config, sequence_length).values())


def training_state_bytes(config: ModelConfig, kind: str = "mixed", n_ranks: int = 1) -> int:
    """Return the bytes of weights, gradients and optimizer that each of n ranks holds when all is sharded.

    Sharded as by ZeRO-3 or FSDP; activations, gathered layers and communication buffers come on top. `kind` is a
    key of `TRAINING_STATES`.
    """
    return -(-count_parameters(config) * sum(TRAINING_STATES[kind]) // n_ranks)


def min_ranks(config: ModelConfig, rank_bytes: float, kind: str = "mixed") -> int:
    """Return the smallest number of ranks, each with room for this many bytes, that hold the training states."""
    return max(1, int(-(-training_state_bytes(config, kind) // rank_bytes)))


def weight_bytes(config: ModelConfig, bytes_per_parameter: int = 2) -> int:
    """Return the size of the weights: 2 bytes in bfloat16, 4 in float32."""
    return count_parameters(config) * bytes_per_parameter


def kv_cache_bytes_per_token(config: ModelConfig, bytes_per_value: int = 2) -> int:
    """Return what generation keeps of each token: keys and values of the attention layers.

    The two scores of a context layer, 8 bytes per superblock, are not counted.
    """
    n_kv_heads = config.n_heads if isinstance(config, GPT2Config) else config.n_kv_heads
    return 2 * _attention_layers(config) * n_kv_heads * config.head_dim * bytes_per_value


def delta_net_state_bytes(config: ModelConfig, bytes_per_value: int = 2) -> int:
    """Return what DeltaNet keeps of a sequence of any length in generation; zero for families without it.

    States in float32, the convolutions' last inputs in `bytes_per_value`.
    """
    if not isinstance(config, WorldConfig):
        return 0
    state = config.n_value_heads * config.key_dim * config.value_dim * 4
    taps = (config.conv_taps - 1) * _conv_channels(config) * bytes_per_value
    return _delta_layers(config) * (state + taps)


def layer_input_bytes(config: ModelConfig, sequence_length: int, bytes_per_value: int = 2) -> int:
    """Return the activations that a sequence leaves when all but the layers' inputs are recomputed: a lower bound.

    What one layer needs while it is recomputed comes on top and depends on the kernels.
    """
    return config.n_layers * sequence_length * config.d_model * bytes_per_value


def count_table_layers(config: ModelConfig) -> int:
    """Return the rows of the layer table: the layers, and for the world family 5 around them.

    The 5 are token embedding, rotary positions, final norm, classification heads and output head.
    """
    return config.n_layers + (5 if isinstance(config, WorldConfig) else 0)


def _gpt2_split(config: GPT2Config) -> dict[str, int]:
    width, n_layers = config.d_model, config.n_layers
    return {
        "embedding_and_head": config.vocab_size * width,
        "positions": config.max_seq_len * width,
        "attention": n_layers * 4 * (width * width + width),
        "feed_forward": n_layers * _gelu(width, 4 * width),
        "norms": (2 * n_layers + 1) * 2 * width,
    }


def _rope_split(config: RopeConfig) -> dict[str, int]:
    width, n_layers = config.d_model, config.n_layers
    kv_width = config.n_kv_heads * config.head_dim
    attention, feed_forward, norm = 2 * width * (width + kv_width), _swiglu(width, config.d_ff), width
    if config.feed_forward == "gelu":  # GPT-NeoX: biases everywhere but in the head
        attention, feed_forward, norm = attention + 4 * width, _gelu(width, config.d_ff), 2 * width
    return {
        "embedding_and_head": config.vocab_size * width * (1 if config.tie_embeddings else 2),
        "attention": n_layers * attention,
        "feed_forward": n_layers * feed_forward,
        "norms": (2 * n_layers + 1) * norm,
    }


def _world_split(config: WorldConfig) -> dict[str, int]:
    width, n_layers = config.d_model, config.n_layers
    value_width = config.n_value_heads * config.value_dim
    query_width, kv_width = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    delta_net = (
        width * (_conv_channels(config) + value_width)  # q, k, v and the output gate z
        + 2 * width * config.n_value_heads  # write strength and decay
        + config.conv_taps * _conv_channels(config)
        + 2 * config.n_value_heads  # A_log, dt_bias
        + config.value_dim  # gated norm
        + value_width * width
    )
    attention = width * (2 * query_width + 2 * kv_width) + query_width * width + 2 * config.head_dim
    return {
        "embedding_and_head": config.vocab_size * width * (1 if config.tie_embeddings else 2),
        "delta_net": _delta_layers(config) * delta_net,
        "attention": _attention_layers(config) * attention,
        "experts": n_layers * config.num_experts * _swiglu(width, config.d_expert),
        "shared_experts": n_layers * (_swiglu(width, config.d_shared) + width),  # and its scalar gate
        "router": n_layers * width * config.num_experts,
        "norms": (2 * n_layers + 1) * width,
        "context": _context(config),
        "classification_heads": (width + 1) * (config.n_tones + config.n_fields),
    }


def _context(config: WorldConfig) -> int:
    width, rank = config.d_model, config.context_rank
    if rank == 0:
        return 0
    scorer = width + width * rank + 2 * rank + 2  # norm, down, score with bias
    gains = 2 * _attention_layers(config) * config.n_heads + _delta_layers(config) * config.n_value_heads
    return config.n_superblocks * scorer + gains


def _attention_layers(config: ModelConfig) -> int:
    return config.n_superblocks * PATTERN.count("A") if isinstance(config, WorldConfig) else config.n_layers


def _delta_layers(config: WorldConfig) -> int:
    return config.n_superblocks * PATTERN.count("D")


def _conv_channels(config: WorldConfig) -> int:
    return 2 * config.n_key_heads * config.key_dim + config.n_value_heads * config.value_dim


def _swiglu(width: int, inner: int) -> int:
    return 3 * width * inner


def _gelu(width: int, inner: int) -> int:
    return 2 * width * inner + inner + width
