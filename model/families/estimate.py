"""Numbers on paper: parameters, FLOPs and memory of a model in closed form, without building it. Loads no torch.

What differs between families their `Formulas` say.
"""

from collections.abc import Mapping

from model.families.base import ModelConfig
from model.families.formulas import Formulas
from model.families.registry import family_of

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


def formulas_of(config: ModelConfig) -> Formulas:
    """Return what the family of a config says about it."""
    return family_of(config).formulas(config)


def parameter_split(config: ModelConfig) -> dict[str, int]:
    """Return the parameters by what they are for; a tied head counts once. The parts sum to the whole."""
    return formulas_of(config).parameters_by_kind()


def count_parameters(config: ModelConfig) -> int:
    """Return the number of parameters of a model."""
    return sum(parameter_split(config).values())


def count_active_parameters(config: ModelConfig) -> int:
    """Return the parameters that compute on one token: what its FLOPs follow from.

    All but the experts that a token is not sent to and the tables that are only looked up: the token embedding
    when it is not the head too, and learned positions. The head counts, as it is computed for every token.
    """
    formulas = formulas_of(config)
    return count_parameters(config) - formulas.looked_up_parameters() - formulas.unrouted_parameters()


def training_flops_split(config: ModelConfig, sequence_length: int) -> dict[str, int]:
    """Return the FLOPs of forward and backward per token, by cause; a multiplication with addition is 2.

    `parameters`: 6 per active parameter (arXiv:2001.08361, section 2.1).
    `attention`: scores and weighted sum, 6 T H D per layer: half of arXiv:2204.02311, appendix B, whose 12 counts
    the keys that the causal mask hides, too. Masks between packed documents would save more.
    Others as the family says. Norms, gates, softmax and recomputed activations are left out, as in the usual
    definition of MFU.
    """
    formulas = formulas_of(config)
    return {
        "parameters": 6 * count_active_parameters(config),
        "attention": 6 * formulas.attention_layers * formulas.query_width * sequence_length,
        **formulas.training_flops(),
    }


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
    formulas = formulas_of(config)
    return 2 * formulas.attention_layers * formulas.kv_width * bytes_per_value


def recurrent_state_bytes(config: ModelConfig, bytes_per_value: int = 2) -> int:
    """Return what generation keeps of a sequence of any length; zero for attention alone."""
    return formulas_of(config).state_bytes(bytes_per_value)


def layer_input_bytes(config: ModelConfig, sequence_length: int, bytes_per_value: int = 2) -> int:
    """Return the activations that a sequence leaves when all but the layers' inputs are recomputed: a lower bound.

    What one layer needs while it is recomputed comes on top and depends on the kernels.
    """
    formulas = formulas_of(config)
    return formulas.layers * sequence_length * formulas.width * bytes_per_value


def count_table_layers(config: ModelConfig) -> int:
    """Return the rows of the layer table: the layers, and what a family counts around them."""
    return formulas_of(config).table_layers()
