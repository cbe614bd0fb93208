"""The rope family with GELU as a `GPTNeoXForCausalLM` without parallel residuals.

It keeps queries, keys and values of a layer in one matrix, in which those of each head stand together.

Shapes: H heads, D head width, C d_model.
"""

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from model.export.architecture import ROTARY_LIMIT, Architecture, CardText, Tensors
from model.export.fields import Fields, take_rotary
from model.export.tensors import LazyTensors
from model.families.rope.config import RopeConfig

HEAD, EMBEDDING = "embed_out.weight", "gpt_neox.embed_in.weight"

NAMES = {
    "embed_tokens": "gpt_neox.embed_in",
    "self_attn.o_proj": "attention.dense",
    "input_layernorm": "input_layernorm",
    "post_attention_layernorm": "post_attention_layernorm",
    "mlp.up_proj": "mlp.dense_h_to_4h",
    "mlp.down_proj": "mlp.dense_4h_to_h",
    "norm": "gpt_neox.final_layer_norm",
    "lm_head": "embed_out",
}
"""Our module -> GPT-NeoX's; inside a layer both are relative to it. `embed_out` is its name on disk."""

_OURS = {theirs: ours for ours, theirs in NAMES.items()} | {"lm_head": "lm_head"}
_PARAMETER = re.compile(r"(?:(?:gpt_neox\.)?layers\.(\d+)\.)?(.+)\.(weight|bias)")
_BUFFER = re.compile(r".*\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)")


def to_gpt_neox(state_dict: Mapping[str, Tensor], n_heads: int) -> LazyTensors:
    """Turn our parameters into those of `GPTNeoXForCausalLM`. Raises: ValueError for another kind of model."""
    makers = {}
    for name in state_dict:
        layer, module, kind = _parts(name)
        place = f"gpt_neox.layers.{layer}." if layer is not None else ""
        if module in NAMES:
            makers[f"{place}{NAMES[module]}.{kind}"] = partial(state_dict.__getitem__, name)
        elif module == "self_attn.q_proj":
            sources = [name.replace("q_proj", f"{part}_proj") for part in "qkv"]
            makers[f"{place}attention.query_key_value.{kind}"] = partial(_joined, state_dict, sources, n_heads)
        elif module not in ("self_attn.k_proj", "self_attn.v_proj"):
            raise _unknown(name)
    return LazyTensors(makers)


def from_gpt_neox(state_dict: Mapping[str, Tensor], n_heads: int) -> LazyTensors:
    """Turn the parameters of a `GPTNeoXForCausalLM`, in memory or on disk, into ours; buffers are left out.

    Raises: ValueError for another kind of model.
    """
    makers = {}
    for name in state_dict:
        if _BUFFER.fullmatch(name):
            continue
        layer, module, kind = _parts(name)
        place = f"layers.{layer}." if layer is not None else ""
        if module == "attention.query_key_value":
            for number, part in enumerate("qkv"):
                ours = f"{place}self_attn.{part}_proj.{kind}"
                makers[ours] = partial(_parted, state_dict, name, n_heads, number)
        elif module in _OURS:
            makers[f"{place}{_OURS[module]}.{kind}"] = partial(state_dict.__getitem__, name)
        else:
            raise _unknown(name)
    return LazyTensors(makers)


def gpt_neox_config(config: RopeConfig) -> dict[str, Any]:
    """Return config.json without token ids. Rotary settings stand there twice, for transformers 4 and 5."""
    return {
        "architectures": ["GPTNeoXForCausalLM"],
        "attention_bias": True,
        "attention_dropout": 0.0,
        "hidden_act": "gelu",
        "hidden_dropout": 0.0,
        "hidden_size": config.d_model,
        "initializer_range": 0.02,
        "intermediate_size": config.d_ff,
        "layer_norm_eps": config.norm_eps,
        "max_position_embeddings": config.max_seq_len,
        "model_type": "gpt_neox",
        "num_attention_heads": config.n_heads,
        "num_hidden_layers": config.n_layers,
        "rope_parameters": {
            "partial_rotary_factor": 1.0,
            "rope_theta": config.rope_theta,
            "rope_type": "default",
        },
        "rotary_emb_base": config.rope_theta,
        "rotary_pct": 1.0,
        "tie_word_embeddings": config.tie_embeddings,
        "use_cache": True,
        "use_parallel_residual": False,
        "vocab_size": config.vocab_size,
    }


def read_gpt_neox_config(fields: Fields) -> RopeConfig:
    """Return our config of a GPT-NeoX. Raises: InputError for one that the rope family cannot express."""
    n_heads = fields.take_size("num_attention_heads")
    fields.expect("hidden_act", "gelu", "gelu")
    fields.expect("attention_bias", True, True)
    fields.expect("use_parallel_residual", False, True)
    theta, fraction = take_rotary(fields, default_fraction=0.25, old_names=("rotary_emb_base", "rotary_pct"))
    if fraction != 1.0:
        raise fields.refused("rotary_pct", fraction, "1.0")
    return fields.config(
        RopeConfig,
        vocab_size=fields.take("vocab_size"),
        max_seq_len=fields.take("max_position_embeddings", 2048),
        n_layers=fields.take("num_hidden_layers"),
        n_heads=n_heads,
        n_kv_heads=n_heads,
        d_model=fields.take("hidden_size"),
        d_ff=fields.take("intermediate_size"),
        feed_forward="gelu",
        rope_theta=theta,
        norm_eps=fields.take("layer_norm_eps", 1e-5),
        tie_embeddings=fields.take("tie_word_embeddings", False),
    )


class GPTNeoX(Architecture[RopeConfig]):
    """Hugging Face's GPT-NeoX."""

    name = "GPTNeoXForCausalLM"
    model_type = "gpt_neox"
    tied = ("embed_out.weight", "gpt_neox.embed_in.weight")
    card = CardText(
        "A decoder-only transformer (GPT-NeoX architecture, without parallel residuals)",
        ("gpt_neox",),
        (ROTARY_LIMIT,),
    )

    def expresses(self, config: RopeConfig) -> bool:
        """Tell whether it is GPT-NeoX's block."""
        return config.feed_forward == "gelu"

    def is_tied(self, config: RopeConfig) -> bool:
        """Tell whether the head is the embedding."""
        return config.tie_embeddings

    def to_tensors(self, tensors: Tensors, config: RopeConfig) -> LazyTensors:
        """Return the tensors on disk."""
        return to_gpt_neox(tensors, config.n_heads)

    def from_tensors(self, tensors: Tensors, config: RopeConfig) -> LazyTensors:
        """Return our state dict."""
        return from_gpt_neox(tensors, config.n_heads)

    def write_config(self, config: RopeConfig) -> dict[str, Any]:
        """Return config.json."""
        return gpt_neox_config(config)

    def read_config(self, fields: Fields) -> RopeConfig:
        """Return our config."""
        return read_gpt_neox_config(fields)


def _parts(name: str) -> tuple[str | None, str, str]:
    """Split a name into the number of its layer, the module and weight or bias."""
    match = _PARAMETER.fullmatch(name)
    if match is None:
        raise _unknown(name)
    return match[1], match[2], match[3]


def _joined(state_dict: Mapping[str, Tensor], names: list[str], n_heads: int) -> Tensor:
    """Stack (H D, ...) of queries, keys and values to (H 3 D, ...)."""
    heads_HD = [state_dict[name].unflatten(0, (n_heads, -1)) for name in names]
    return torch.stack(heads_HD, dim=1).flatten(0, 2)


def _parted(state_dict: Mapping[str, Tensor], name: str, n_heads: int, number: int) -> Tensor:
    """Take queries (0), keys (1) or values (2), (H D, ...), out of (H 3 D, ...)."""
    return state_dict[name].unflatten(0, (n_heads, 3, -1))[:, number].flatten(0, 1)


def _unknown(name: str) -> ValueError:
    return ValueError(f"a parameter must be one of GPT-NeoX's, found {name!r}; it is of another kind of model")
