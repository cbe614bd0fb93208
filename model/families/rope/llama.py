"""The rope family with SwiGLU as a `LlamaForCausalLM`: only a prefix differs."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from model.export.architecture import ROTARY_LIMIT, Architecture, CardText, Tensors
from model.export.fields import Fields, take_rotary
from model.export.tensors import LazyTensors, renamed
from model.families.rope.config import RopeConfig

HEAD = "lm_head.weight"
PREFIX = "model."


def to_llama(state_dict: Mapping[str, Tensor]) -> LazyTensors:
    """Rename our parameters to those of `LlamaForCausalLM`."""
    return renamed(state_dict, lambda name: name if name == HEAD else PREFIX + name)


def from_llama(state_dict: Mapping[str, Tensor]) -> LazyTensors:
    """Rename the parameters of a `LlamaForCausalLM` to ours; the buffers of old files are left out."""
    return renamed(
        state_dict, lambda name: None if name.endswith(".rotary_emb.inv_freq") else name.removeprefix(PREFIX)
    )


def llama_config(config: RopeConfig) -> dict[str, Any]:
    """Return config.json without token ids. `rope_theta` stands there twice, for transformers 4 and 5."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "hidden_size": config.d_model,
        "initializer_range": 0.02,
        "intermediate_size": config.d_ff,
        "max_position_embeddings": config.max_seq_len,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": config.n_heads,
        "num_hidden_layers": config.n_layers,
        "num_key_value_heads": config.n_kv_heads,
        "rms_norm_eps": config.norm_eps,
        "rope_parameters": {"rope_theta": config.rope_theta, "rope_type": "default"},
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": config.tie_embeddings,
        "use_cache": True,
        "vocab_size": config.vocab_size,
    }


def read_llama_config(fields: Fields) -> RopeConfig:
    """Return our config of a Llama. Raises: InputError for one that the rope family cannot express."""
    d_model, n_heads = fields.take_size("hidden_size"), fields.take_size("num_attention_heads")
    fields.expect("hidden_act", "silu", "silu")
    fields.expect("attention_bias", False, False)
    fields.expect("mlp_bias", False, False)
    fields.expect("pretraining_tp", 1, 1)
    fields.expect("head_dim", d_model // n_heads, d_model // n_heads)
    theta, fraction = take_rotary(fields)
    if fraction != 1.0:
        raise fields.refused("partial_rotary_factor", fraction, "1.0")
    return fields.config(
        RopeConfig,
        vocab_size=fields.take("vocab_size"),
        max_seq_len=fields.take("max_position_embeddings", 2048),
        n_layers=fields.take("num_hidden_layers"),
        n_heads=n_heads,
        n_kv_heads=fields.take("num_key_value_heads", n_heads),
        d_model=d_model,
        d_ff=fields.take("intermediate_size"),
        feed_forward="swiglu",
        rope_theta=theta,
        norm_eps=fields.take("rms_norm_eps", 1e-6),
        tie_embeddings=fields.take("tie_word_embeddings", False),
    )


class Llama(Architecture[RopeConfig]):
    """Hugging Face's Llama."""

    name = "LlamaForCausalLM"
    model_type = "llama"
    tied = (HEAD, "model.embed_tokens.weight")
    card = CardText("A decoder-only transformer (Llama architecture)", ("llama",), (ROTARY_LIMIT,))

    def expresses(self, config: RopeConfig) -> bool:
        """Tell whether it is Llama's block."""
        return config.feed_forward == "swiglu"

    def is_tied(self, config: RopeConfig) -> bool:
        """Tell whether the head is the embedding."""
        return config.tie_embeddings

    def to_tensors(self, tensors: Tensors, config: RopeConfig) -> LazyTensors:
        """Return the tensors on disk."""
        return to_llama(tensors)

    def from_tensors(self, tensors: Tensors, config: RopeConfig) -> LazyTensors:
        """Return our state dict."""
        return from_llama(tensors)

    def write_config(self, config: RopeConfig) -> dict[str, Any]:
        """Return config.json."""
        return llama_config(config)

    def read_config(self, fields: Fields) -> RopeConfig:
        """Return our config."""
        return read_llama_config(fields)
