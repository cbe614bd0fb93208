"""A trained model as a Hugging Face folder: transformers loads it as a Llama, and a check proves it the same.

Files: model.safetensors, config.json, generation_config.json, tokenizer.json, tokenizer_config.json. Only names
change on the way: no tensor is transposed, permuted or cast. The same model gives the same bytes.
"""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from model.config import ModelConfig
from model.generation import generate
from model.transformer import Transformer
from model.weights import save_weights
from storage.errors import Fault
from storage.tokens import EOT

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LOGIT_TOLERANCE = 1e-5
"""Largest difference of two logits in units of the largest logit: sums in another order, nothing more."""

CHECKED_TOKENS = 8
"""How many tokens both implementations generate greedily in the check."""

LLAMA_NAMES = {
    "embedding": "model.embed_tokens",
    "attention_norm": "input_layernorm",
    "attention.q": "self_attn.q_proj",
    "attention.k": "self_attn.k_proj",
    "attention.v": "self_attn.v_proj",
    "attention.out": "self_attn.o_proj",
    "feed_forward_norm": "post_attention_layernorm",
    "feed_forward.gate": "mlp.gate_proj",
    "feed_forward.up": "mlp.up_proj",
    "feed_forward.down": "mlp.down_proj",
    "norm": "model.norm",
    "head": "lm_head",
}
"""Our module -> Llama's module; inside a layer both are relative to that layer."""

OUR_NAMES = {llama: ours for ours, llama in LLAMA_NAMES.items()}


def to_llama(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename our parameters to those of `LlamaForCausalLM`."""
    return {_renamed(name, "layers.", "model.layers.", LLAMA_NAMES): state_dict[name] for name in state_dict}


def from_llama(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the parameters of a `LlamaForCausalLM` to ours; a tied head must have been left out."""
    return {_renamed(name, "model.layers.", "layers.", OUR_NAMES): state_dict[name] for name in state_dict}


def llama_config(config: ModelConfig, eot_id: int) -> dict[str, Any]:
    """Return the content of config.json. `rope_theta` stands there twice, for transformers 4 and 5."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": eot_id,
        "dtype": "float32",
        "eos_token_id": eot_id,
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


def write_folder(model: Transformer, tokenizer_file: Path, eot_id: int, used_vocab: int, folder: Path) -> None:
    """Write the files that transformers loads into an existing folder.

    Ids from `used_vocab` on only pad the embedding; the generation settings keep them from being chosen.
    """
    unused = list(range(used_vocab, model.config.vocab_size))
    save_weights(to_llama(model.state_dict()), folder / "model.safetensors")
    shutil.copyfile(tokenizer_file, folder / "tokenizer.json")
    _write_json(folder / "config.json", llama_config(model.config, eot_id))
    _write_json(
        folder / "generation_config.json",
        {
            "bos_token_id": eot_id,
            "eos_token_id": eot_id,
            "pad_token_id": eot_id,
            **({"suppress_tokens": unused} if unused else {}),
        },
    )
    _write_json(
        folder / "tokenizer_config.json",
        {
            "bos_token": EOT,
            "clean_up_tokenization_spaces": False,
            "eos_token": EOT,
            "model_max_length": model.config.max_seq_len,
            "pad_token": EOT,
            "tokenizer_class": "PreTrainedTokenizerFast",
        },
    )


@dataclass(frozen=True)
class FolderCheck:
    """What was found equal between a folder, loaded by transformers, and the model it was made from."""

    parameters: int
    logit_difference: float
    """Largest difference of two logits in units of the largest logit."""
    texts: int
    """Texts that both tokenizers encode alike."""
    generated_tokens: int
    """Tokens that both generate greedily from the same prompt."""


def check_folder(
    folder: Path, model: Transformer, tokenizer: "Tokenizer", texts: Sequence[str], eot_id: int, used_vocab: int
) -> FolderCheck:
    """Load a folder with transformers, from disk only, and compare it with the model and tokenizer on the CPU.

    Raises: Fault that says what differs.
    """
    llama, loaded_tokenizer = _load(folder)
    _check_weights(folder, model, llama)
    for text in texts:
        wanted, found = tokenizer.encode(text).ids, loaded_tokenizer.encode(text)
        if wanted != found:
            raise _differs(folder, f"token ids of {text!r}", f"{found} instead of {wanted}")
        if (decoded := loaded_tokenizer.decode(found)) != text:
            raise _differs(folder, f"decoded text of {text!r}", repr(decoded))
    ids = _fixed_batch(model.config, used_vocab)
    difference = _check_logits(folder, model, llama, ids)
    generated_tokens = _check_greedy(folder, model, llama, ids, eot_id, used_vocab)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return FolderCheck(parameters, difference, len(texts), generated_tokens)


def _check_weights(folder: Path, model: Transformer, llama: Any) -> None:
    ours = model.state_dict()
    tied = {"lm_head.weight"} if model.config.tie_embeddings else set()
    theirs = from_llama({name: tensor for name, tensor in llama.state_dict().items() if name not in tied})
    different = [name for name in ours if name not in theirs or not torch.equal(ours[name], theirs[name])]
    if different:
        raise _differs(folder, "weights", ", ".join(different[:5]))


def _check_logits(folder: Path, model: Transformer, llama: Any, ids: Tensor) -> float:
    with torch.inference_mode():
        wanted_BTV, found_BTV = model(ids), llama(input_ids=ids).logits
    difference = float((wanted_BTV - found_BTV).abs().max() / wanted_BTV.abs().max())
    if not difference <= LOGIT_TOLERANCE:
        raise _differs(folder, "logits", f"by {difference:.1e} of the largest, allowed {LOGIT_TOLERANCE:.0e}")
    return difference


def _check_greedy(folder: Path, model: Transformer, llama: Any, ids: Tensor, eot_id: int, used_vocab: int) -> int:
    new = min(CHECKED_TOKENS, model.config.max_seq_len - 1)
    prompt = ids[:1, : model.config.max_seq_len - new]
    wanted = generate(model, prompt, new, temperature=0, stop_token=eot_id, used_vocab=used_vocab)
    mask = torch.ones_like(prompt)
    found = llama.generate(prompt, attention_mask=mask, max_new_tokens=new, do_sample=False)
    if not torch.equal(wanted, found):
        raise _differs(folder, "greedy text", f"{found.tolist()} instead of {wanted.tolist()}")
    return wanted.shape[1] - prompt.shape[1]


def _load(folder: Path) -> tuple[Any, Any]:
    from transformers import (  # noqa: PLC0415 - seconds, and only this check needs it
        AutoModelForCausalLM,
        AutoTokenizer,
        logging,
    )

    logging.disable_progress_bar()  # it would draw over our own progress
    load_model: Any = AutoModelForCausalLM.from_pretrained
    try:
        llama, info = load_model(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise _differs(folder, "files", f"transformers cannot load them ({error})") from error
    problems = {kind: sorted(map(str, names)) for kind, names in info.items() if names}
    if problems:
        raise _differs(folder, "parameter names", f"transformers reports {problems}")
    return llama.eval(), tokenizer


def _fixed_batch(config: ModelConfig, used_vocab: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(used_vocab, (2, min(64, config.max_seq_len)), generator=generator)


def _renamed(name: str, prefix: str, new_prefix: str, names: Mapping[str, str]) -> str:
    match = re.fullmatch(rf"(?:{re.escape(prefix)}(\d+)\.)?(.+)\.weight", name)
    if match is None or match[2] not in names:
        raise Fault(
            f"a parameter must be one of {', '.join(names)}, found {name!r}; it is of another kind of model"
        )
    layer = f"{new_prefix}{match[1]}." if match[1] is not None else ""
    return f"{layer}{names[match[2]]}.weight"


def _differs(folder: Path, what: str, found: str) -> Fault:
    return Fault(
        f"the folder that transformers loads must equal the trained model, but its {what} differ: {found}; "
        f"nothing was published, run again, and report this if it comes back ({folder.name})"
    )


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
