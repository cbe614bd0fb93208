"""The gpt2 family as a `GPT2LMHeadModel`, whose matrices are transposed (`Conv1D` keeps inputs x outputs)."""

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor

from model.export.architecture import Architecture, CardText, Tensors
from model.export.fields import Fields
from model.export.tensors import LazyTensors, renamed
from model.families.gpt2.config import GPT2Config

HEAD = "lm_head.weight"
PREFIX = "transformer."

_MATRIX = re.compile(r"h\.\d+\.(attn|mlp)\.c_\w+\.weight")
_BUFFER = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")
"""The causal mask, which old files hold."""


def to_gpt2(state_dict: Mapping[str, Tensor]) -> LazyTensors:
    """Rename our parameters to those of `GPT2LMHeadModel`, whose head is its embedding."""
    return renamed(_transposed(state_dict), lambda name: PREFIX + name)


def from_gpt2(state_dict: Mapping[str, Tensor]) -> LazyTensors:
    """Rename the parameters of a `GPT2LMHeadModel`, or of the `GPT2Model` inside, to ours.

    The head, which is the embedding, and the masks of old files are left out.
    """

    def rename(name: str) -> str | None:
        name = name.removeprefix(PREFIX)
        return None if name == HEAD or _BUFFER.fullmatch(name) else name

    return _transposed(renamed(state_dict, rename))


def gpt2_config(config: GPT2Config) -> dict[str, Any]:
    """Return config.json without token ids."""
    return {
        "activation_function": "gelu_new",
        "architectures": ["GPT2LMHeadModel"],
        "attn_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "initializer_range": 0.02,
        "layer_norm_epsilon": config.norm_eps,
        "model_type": "gpt2",
        "n_embd": config.d_model,
        "n_head": config.n_heads,
        "n_inner": 4 * config.d_model,
        "n_layer": config.n_layers,
        "n_positions": config.max_seq_len,
        "reorder_and_upcast_attn": False,
        "resid_pdrop": config.dropout,
        "scale_attn_by_inverse_layer_idx": False,
        "scale_attn_weights": True,
        "tie_word_embeddings": True,
        "use_cache": True,
        "vocab_size": config.vocab_size,
    }


def read_gpt2_config(fields: Fields) -> GPT2Config:
    """Return our config of a GPT-2. Raises: InputError for a variant that is not GPT-2 as published."""
    d_model = fields.take_size("n_embd", 768)
    activation = fields.take("activation_function", "gelu_new")
    if activation not in ("gelu_new", "gelu_pytorch_tanh"):  # one formula in two spellings
        raise fields.refused("activation_function", activation, "'gelu_new'")
    fields.expect("n_inner", 4 * d_model, 4 * d_model)
    fields.expect("scale_attn_weights", True, True)
    fields.expect("scale_attn_by_inverse_layer_idx", False, False)
    fields.expect("add_cross_attention", False, False)
    fields.expect("tie_word_embeddings", True, True)
    return fields.config(
        GPT2Config,
        vocab_size=fields.take("vocab_size", 50_257),
        max_seq_len=fields.take("n_positions", 1024),
        n_layers=fields.take("n_layer", 12),
        n_heads=fields.take("n_head", 12),
        d_model=d_model,
        norm_eps=fields.take("layer_norm_epsilon", 1e-5),
    )


def _transposed(tensors: Mapping[str, Tensor]) -> LazyTensors:
    """Transpose the matrices between `Linear` and `Conv1D`; names are ours."""

    def make(name: str) -> Tensor:
        tensor = tensors[name]
        return tensor.t() if _MATRIX.fullmatch(name) else tensor

    return LazyTensors({name: partial(make, name) for name in tensors})


class GPT2LMHead(Architecture[GPT2Config]):
    """Hugging Face's GPT-2."""

    name = "GPT2LMHeadModel"
    model_type = "gpt2"
    tied = ("lm_head.weight", "transformer.wte.weight")
    card = CardText(
        "A decoder-only transformer (GPT-2 architecture)",
        ("gpt2",),
        ("It reads at most {max_seq_len:,} tokens of context.",),
    )

    def to_tensors(self, tensors: Tensors, config: GPT2Config) -> LazyTensors:
        """Return the tensors on disk."""
        return to_gpt2(tensors)

    def from_tensors(self, tensors: Tensors, config: GPT2Config) -> LazyTensors:
        """Return our state dict."""
        return from_gpt2(tensors)

    def write_config(self, config: GPT2Config) -> dict[str, Any]:
        """Return config.json."""
        return gpt2_config(config)

    def read_config(self, fields: Fields) -> GPT2Config:
        """Return our config."""
        return read_gpt2_config(fields)


ARCHITECTURES = (GPT2LMHead(),)
