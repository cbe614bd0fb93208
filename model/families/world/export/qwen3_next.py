"""The hybrid world model as a `Qwen3NextForCausalLM`.

Names are the same but for a prefix and the experts, which lie on disk one by one, as in Qwen's own files.
Qwen3-Next has no factor on the experts' sum: it is multiplied into their last projection.
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
from model.families.world.config import WorldConfig
from model.families.world.pattern import PATTERN

HEAD = "lm_head.weight"
PREFIX = "model."

KINDS = {"D": "linear_attention", "A": "full_attention"}
"""Our letters for sublayers -> Qwen3-Next's names of layers."""

_STACK = re.compile(r"(.*\.mlp\.experts)\.(gate_up_proj|down_proj)")
_EXPERT = re.compile(r"(.*\.mlp\.experts)\.(\d+)\.(gate|up|down)_proj\.weight")


def to_qwen3_next(state_dict: Mapping[str, Tensor], expert_scale: float) -> LazyTensors:
    """Turn our parameters into those of `Qwen3NextForCausalLM` on disk."""
    makers = {}
    for name, tensor in state_dict.items():
        stack = _STACK.fullmatch(name)
        if stack is None:
            makers[name if name == HEAD else PREFIX + name] = partial(state_dict.__getitem__, name)
            continue
        for expert in range(len(tensor)):
            place = f"{PREFIX}{stack[1]}.{expert}"
            if stack[2] == "down_proj":
                makers[f"{place}.down_proj.weight"] = partial(_scaled, state_dict, name, expert, expert_scale)
            else:
                for half, part in enumerate(("gate", "up")):
                    makers[f"{place}.{part}_proj.weight"] = partial(_half, state_dict, name, expert, half)
    return LazyTensors(makers)


def from_qwen3_next(state_dict: Mapping[str, Tensor]) -> LazyTensors:
    """Turn the parameters of a `Qwen3NextForCausalLM`, in memory or on disk, into ours with an expert scale of 1.

    The weights that predict further tokens (`mtp.*`), which transformers does not use, are left out.
    """
    makers: dict[str, Any] = {}
    experts: dict[str, int] = {}
    for name in state_dict:
        one = _EXPERT.fullmatch(name)
        if one is not None:
            experts[one[1]] = max(experts.get(one[1], 0), int(one[2]) + 1)
        elif not name.startswith("mtp."):
            makers[name.removeprefix(PREFIX)] = partial(state_dict.__getitem__, name)
    for place, number in experts.items():
        ours = place.removeprefix(PREFIX)
        makers[f"{ours}.gate_up_proj"] = partial(_stacked, state_dict, place, number, ("gate", "up"))
        makers[f"{ours}.down_proj"] = partial(_stacked, state_dict, place, number, ("down",))
    return LazyTensors(makers)


def qwen3_next_config(config: WorldConfig) -> dict[str, Any]:
    """Return config.json without token ids. Rotary settings stand there twice, for transformers 4 and 5."""
    return {
        "architectures": ["Qwen3NextForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "decoder_sparse_step": 1,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "hidden_size": config.d_model,
        "initializer_range": 0.02,
        "intermediate_size": config.d_shared,  # of layers without experts, which there are none of
        "layer_types": [KINDS[kind] for kind in PATTERN * config.n_superblocks],
        "linear_conv_kernel_dim": config.conv_taps,
        "linear_key_head_dim": config.key_dim,
        "linear_num_key_heads": config.n_key_heads,
        "linear_num_value_heads": config.n_value_heads,
        "linear_value_head_dim": config.value_dim,
        "max_position_embeddings": config.max_seq_len,
        "mlp_only_layers": [],
        "model_type": "qwen3_next",
        "moe_intermediate_size": config.d_expert,
        "norm_topk_prob": True,
        "num_attention_heads": config.n_heads,
        "num_experts": config.num_experts,
        "num_experts_per_tok": config.top_k,
        "num_hidden_layers": config.n_layers,
        "num_key_value_heads": config.n_kv_heads,
        "output_router_logits": False,
        "partial_rotary_factor": config.rotary_fraction,
        "rms_norm_eps": config.norm_eps,
        "rope_parameters": {
            "partial_rotary_factor": config.rotary_fraction,
            "rope_theta": config.rope_theta,
            "rope_type": "default",
        },
        "rope_theta": config.rope_theta,
        "router_aux_loss_coef": 0.001,
        "shared_expert_intermediate_size": config.d_shared,
        "tie_word_embeddings": config.tie_embeddings,
        "use_cache": True,
        "vocab_size": config.vocab_size,
    }


def read_qwen3_next_config(fields: Fields) -> WorldConfig:
    """Return our config of a Qwen3-Next. Raises: InputError for one that is not made of our superblocks."""
    n_layers, interval = fields.take_size("num_hidden_layers"), fields.take_size("full_attention_interval", 4)
    kinds = fields.take("layer_types", None)
    if kinds is None:
        kinds = [KINDS["D" if (layer + 1) % interval else "A"] for layer in range(n_layers)]
    wanted = [KINDS[kind] for kind in PATTERN] * max(1, n_layers // len(PATTERN))
    if list(kinds) != wanted or len(wanted) != n_layers:
        raise fields.refused("layer_types", kinds, f"{PATTERN} (D linear, A full attention) once or more")
    fields.take("intermediate_size", None)  # of layers without experts
    fields.expect("hidden_act", "silu", "silu")
    fields.expect("attention_bias", False, False)
    fields.expect("norm_topk_prob", True, True)
    fields.expect("decoder_sparse_step", 1, 1)
    fields.expect("mlp_only_layers", [], [])
    theta, fraction = take_rotary(fields, default_fraction=0.25)
    return fields.config(
        WorldConfig,
        vocab_size=fields.take("vocab_size"),
        max_seq_len=fields.take("max_position_embeddings", 32_768),
        n_superblocks=n_layers // len(PATTERN),
        d_model=fields.take("hidden_size"),
        n_heads=fields.take("num_attention_heads"),
        n_kv_heads=fields.take("num_key_value_heads", 2),
        head_dim=fields.take("head_dim", 256),
        n_key_heads=fields.take("linear_num_key_heads", 16),
        key_dim=fields.take("linear_key_head_dim", 128),
        n_value_heads=fields.take("linear_num_value_heads", 32),
        value_dim=fields.take("linear_value_head_dim", 128),
        num_experts=fields.take("num_experts"),
        top_k=fields.take("num_experts_per_tok"),
        d_expert=fields.take("moe_intermediate_size"),
        d_shared=fields.take("shared_expert_intermediate_size"),
        conv_taps=fields.take("linear_conv_kernel_dim", 4),
        rotary_fraction=fraction,
        rope_theta=theta,
        norm_eps=fields.take("rms_norm_eps", 1e-6),
        tie_embeddings=fields.take("tie_word_embeddings", False),
        router="softmax_aux",
        route_scale=1.0,
    )


class Qwen3Next(Architecture[WorldConfig]):
    """Hugging Face's Qwen3-Next."""

    name = "Qwen3NextForCausalLM"
    model_type = "qwen3_next"
    tied = (HEAD, "model.embed_tokens.weight")
    card = CardText(
        "A mixture-of-experts hybrid of Gated DeltaNet and gated attention (Qwen3-Next architecture)",
        ("qwen3_next", "moe"),
        (
            ROTARY_LIMIT,
            "The factor on the sum of the routed experts is multiplied into their last projection, for the "
            "architecture has none.",
            "It was checked with transformers; other engines for Qwen3-Next were not tried at this size.",
        ),
    )

    def expresses(self, config: WorldConfig) -> bool:
        """Tell whether the model has nothing that is our own."""
        return config.is_hybrid

    def is_tied(self, config: WorldConfig) -> bool:
        """Tell whether the head is the embedding."""
        return config.tie_embeddings

    def to_tensors(self, tensors: Tensors, config: WorldConfig) -> LazyTensors:
        """Return the tensors on disk."""
        return to_qwen3_next(tensors, config.expert_scale)

    def from_tensors(self, tensors: Tensors, config: WorldConfig) -> LazyTensors:
        """Return our state dict."""
        return from_qwen3_next(tensors)

    def write_config(self, config: WorldConfig) -> dict[str, Any]:
        """Return config.json."""
        return qwen3_next_config(config)

    def read_config(self, fields: Fields) -> WorldConfig:
        """Return our config."""
        return read_qwen3_next_config(fields)


def _scaled(state_dict: Mapping[str, Tensor], name: str, expert: int, scale: float) -> Tensor:
    return state_dict[name][expert] * scale


def _half(state_dict: Mapping[str, Tensor], name: str, expert: int, half: int) -> Tensor:
    return state_dict[name][expert].chunk(2, dim=0)[half]


def _stacked(state_dict: Mapping[str, Tensor], place: str, experts: int, parts: tuple[str, ...]) -> Tensor:
    return torch.stack(
        [
            torch.cat([state_dict[f"{place}.{expert}.{part}_proj.weight"] for part in parts])
            for expert in range(experts)
        ]
    )
