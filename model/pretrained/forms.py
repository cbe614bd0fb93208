"""Which form a model is published in, and how its config and weights are turned into it and back.

gpt2                             GPT2LMHeadModel
rope, swiglu                     LlamaForCausalLM
rope, gelu                       GPTNeoXForCausalLM
world without what is our own    Qwen3NextForCausalLM
world                            WorldForCausalLM, with its code in the folder
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from model.export.fields import Fields
from model.export.tensors import LazyTensors
from model.families.gpt2.config import GPT2Config
from model.families.gpt2.export import from_gpt2, gpt2_config, read_gpt2_config, to_gpt2
from model.families.rope.config import RopeConfig
from model.families.rope.gpt_neox import from_gpt_neox, gpt_neox_config, read_gpt_neox_config, to_gpt_neox
from model.families.rope.llama import from_llama, llama_config, read_llama_config, to_llama
from model.families.world.config import WorldConfig
from model.families.world.export.folder_code import (
    MODEL_TYPE,
    from_world,
    read_world_config,
    to_world,
    world_config,
)
from model.families.world.export.qwen3_next import (
    from_qwen3_next,
    qwen3_next_config,
    read_qwen3_next_config,
    to_qwen3_next,
)
from storage.errors import InputError

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Form:
    """How transformers knows a kind of model."""

    architecture: str
    """Name of the class."""
    model_type: str
    """What config.json calls it."""
    to_tensors: Callable[[Tensors, Any], LazyTensors]
    """Our state dict and config -> the tensors on disk."""
    from_tensors: Callable[[Tensors, Any], LazyTensors]
    """Tensors on disk and our config -> our state dict."""
    write_config: Callable[[Any], dict[str, Any]]
    """Our config -> config.json without token ids."""
    read_config: Callable[[Fields], GPT2Config | RopeConfig | WorldConfig]
    """config.json -> our config; raises InputError for a model that the family cannot express."""
    tied: tuple[str, str]
    """Names of head and embedding on disk, which are one tensor in a tied model."""
    own_code: bool = False
    """Whether the folder must bring its code."""


GPT2_FORM = Form(
    "GPT2LMHeadModel",
    "gpt2",
    lambda tensors, config: to_gpt2(tensors),
    lambda tensors, config: from_gpt2(tensors),
    gpt2_config,
    read_gpt2_config,
    ("lm_head.weight", "transformer.wte.weight"),
)
LLAMA = Form(
    "LlamaForCausalLM",
    "llama",
    lambda tensors, config: to_llama(tensors),
    lambda tensors, config: from_llama(tensors),
    llama_config,
    read_llama_config,
    ("lm_head.weight", "model.embed_tokens.weight"),
)
GPT_NEOX = Form(
    "GPTNeoXForCausalLM",
    "gpt_neox",
    lambda tensors, config: to_gpt_neox(tensors, config.n_heads),
    lambda tensors, config: from_gpt_neox(tensors, config.n_heads),
    gpt_neox_config,
    read_gpt_neox_config,
    ("embed_out.weight", "gpt_neox.embed_in.weight"),
)
QWEN3_NEXT = Form(
    "Qwen3NextForCausalLM",
    "qwen3_next",
    lambda tensors, config: to_qwen3_next(tensors, config.expert_scale),
    lambda tensors, config: from_qwen3_next(tensors),
    qwen3_next_config,
    read_qwen3_next_config,
    ("lm_head.weight", "model.embed_tokens.weight"),
)
WORLD = Form(
    "WorldForCausalLM",
    MODEL_TYPE,
    lambda tensors, config: to_world(tensors),
    lambda tensors, config: from_world(tensors),
    world_config,
    read_world_config,
    ("model.lm_head.weight", "model.embed_tokens.weight"),
    own_code=True,
)
FORMS = (GPT2_FORM, LLAMA, GPT_NEOX, QWEN3_NEXT, WORLD)


def find_form(config: GPT2Config | RopeConfig | WorldConfig) -> Form:
    """Return the form that a model is published in."""
    if isinstance(config, GPT2Config):
        return GPT2_FORM
    if isinstance(config, RopeConfig):
        return LLAMA if config.feed_forward == "swiglu" else GPT_NEOX
    return QWEN3_NEXT if config.is_hybrid else WORLD


def form_of_type(model_type: Any) -> Form:
    """Return the form that a config.json names. Raises: InputError if it is none of ours."""
    for form in FORMS:
        if form.model_type == model_type:
            return form
    raise InputError(
        f"model_type must be one of {', '.join(form.model_type for form in FORMS)}, found {model_type!r}; "
        f"no family of this package can hold that model"
    )
