"""What a family cannot express is refused when it is imported, field by field; nothing is guessed."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.export.fields import Fields
from model.export.tensors import write_weights
from model.families.gpt2.config import GPT2Config
from model.families.registry import build_model
from model.families.rope.config import RopeConfig
from model.families.world.config import WorldConfig
from model.pretrained.architectures import architecture_for, architecture_of_type
from model.pretrained.folder import load_published
from storage.config import changed
from storage.errors import CorruptFileError, InputError

ROPE = RopeConfig(
    vocab_size=20, n_layers=1, n_heads=2, n_kv_heads=2, d_model=8, d_ff=8, max_seq_len=16, tie_embeddings=False
)
OURS: dict[str, Any] = {
    "llama": ROPE,
    "gpt2": GPT2Config(vocab_size=20, n_layers=1, n_heads=2, d_model=8, max_seq_len=16),
    "gpt_neox": changed(ROPE, feed_forward="gelu"),
    "qwen3_next": WorldConfig(
        vocab_size=20, max_seq_len=16, n_superblocks=1, d_model=8, n_heads=2, n_kv_heads=1, head_dim=8,
        n_key_heads=1, key_dim=4, n_value_heads=1, value_dim=4, num_experts=2, top_k=1, d_expert=8, d_shared=8,
        router="softmax_aux", rotary_fraction=0.5,
    ),
}  # fmt: skip


def their_config(model_type: str) -> dict[str, Any]:
    config = OURS[model_type]
    return architecture_for(config).write_config(config)


def read(values: dict[str, Any]) -> Any:
    return architecture_of_type(values["model_type"]).read_config(Fields(values, "config.json"))


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("llama", {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, "rope_type"),
    ("llama", {"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}}, "rope_type"),
    ("llama", {"rope_parameters": {"rope_theta": 1e4, "factor": 4.0}, "rope_theta": None}, "rope_parameters"),
    ("llama", {"rope_parameters": "default"}, "rope_parameters=.*an object"),
    ("llama", {"rope_parameters": [1e4]}, "rope_parameters=.*an object"),
    ("llama", {"rope_scaling": "linear"}, "rope_type"),
    ("llama", {"rope_parameters": None, "rope_theta": "10000"}, "rope_theta=a number"),
    ("llama", {"rope_theta": 5.0}, "rope_theta"),
    ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    ("llama", {"attention_bias": True}, "attention_bias"),
    ("llama", {"mlp_bias": True}, "mlp_bias"),
    ("llama", {"hidden_act": "gelu"}, "hidden_act"),
    ("llama", {"head_dim": 8}, "head_dim"),
    ("llama", {"pretraining_tp": 2}, "pretraining_tp"),
    ("llama", {"sliding_window": 128}, "sliding_window"),
    ("llama", {"quantization_config": {"bits": 4}}, "quantization_config"),
    ("llama", {"num_attention_heads": 3, "num_key_value_heads": 3, "head_dim": None}, "d_model"),
    ("llama", {"hidden_size": "8"}, "hidden_size"),
    ("llama", {"vocab_size": None}, "vocab_size"),
    ("llama", {"model_type": "mistral"}, "model_type"),
    ("gpt2", {"activation_function": "gelu"}, "activation_function"),
    ("gpt2", {"n_inner": 7}, "n_inner"),
    ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights"),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
    ("gpt2", {"add_cross_attention": True}, "add_cross_attention"),
    ("gpt2", {"tie_word_embeddings": False}, "tie_word_embeddings"),
    ("gpt_neox", {"use_parallel_residual": True}, "use_parallel_residual"),
    ("gpt_neox", {"use_parallel_residual": None}, "use_parallel_residual"),  # theirs starts at True
    ("gpt_neox", {"rope_parameters": None, "rotary_pct": None}, "rotary_pct"),  # theirs starts at 0.25
    ("gpt_neox", {"attention_bias": False}, "attention_bias"),
    ("gpt_neox", {"hidden_act": "gelu_new"}, "hidden_act"),
    ("qwen3_next", {"norm_topk_prob": False}, "norm_topk_prob"),
    ("qwen3_next", {"layer_types": ["full_attention"] * 8}, "layer_types"),
    ("qwen3_next", {"layer_types": None, "full_attention_interval": 2}, "layer_types"),
    ("qwen3_next", {"num_hidden_layers": 7}, "layer_types"),
    ("qwen3_next", {"moe_intermediate_size": 6}, "d_expert must be a multiple of 4"),
    ("qwen3_next", {"mlp_only_layers": [0]}, "mlp_only_layers"),
    ("qwen3_next", {"decoder_sparse_step": 2}, "decoder_sparse_step"),
]


@pytest.mark.parametrize(("model_type", "change", "field"), REFUSED, ids=[f"{a}-{c}" for a, _, c in REFUSED])
def test_what_a_family_cannot_express_is_refused(model_type: str, change: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError, match=field):
        read({**their_config(model_type), **change})


@pytest.mark.parametrize("model_type", OURS)
def test_our_own_config_comes_back(model_type: str) -> None:
    assert changed(read(their_config(model_type)), **_scale(model_type)) == OURS[model_type]


def _scale(model_type: str) -> dict[str, float]:
    return {"route_scale": 0.0} if model_type == "qwen3_next" else {}  # it is folded into the weights


def test_fields_of_transformers_4_alone_are_enough() -> None:
    for model_type in ("llama", "gpt_neox", "qwen3_next"):
        old = {name: value for name, value in their_config(model_type).items() if name != "rope_parameters"}
        assert changed(read(old), **_scale(model_type)) == OURS[model_type]


def test_layer_types_left_out_are_every_fourth_attention() -> None:
    values = their_config("qwen3_next")
    del values["layer_types"]
    assert read(values).n_superblocks == 1


def folder_of(tmp_path: Path, model_type: str = "llama") -> Path:
    torch.manual_seed(1)
    config = OURS[model_type]
    form, model = architecture_for(config), build_model(config)
    (tmp_path / "config.json").write_text(json.dumps(form.write_config(config)))
    write_weights(form.to_tensors(model.state_dict(), config), tmp_path)
    return tmp_path


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    values = {**their_config("llama"), "intermediate_size": 9}
    (folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"mlp\.down_proj\.weight must be numbers"):
        load_published(folder)


@pytest.mark.parametrize("model_type", OURS)
def test_missing_and_unknown_weights_are_refused(tmp_path: Path, model_type: str) -> None:
    folder = folder_of(tmp_path, model_type)
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if name.endswith("layernorm.weight") or name.endswith("ln_1.weight"))
    tensors[f"{name.removesuffix('.weight')}_extra.weight"] = tensors.pop(name)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(InputError, match="_extra"):
        load_published(folder)


def test_head_that_differs_from_the_embedding_it_is_tied_to_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    (folder / "config.json").write_text(json.dumps({**their_config("llama"), "tie_word_embeddings": True}))
    with pytest.raises(InputError, match="must equal"):
        load_published(folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, folder / "model.safetensors")
    assert load_published(folder).config.tie_embeddings is True


def test_gpt2_of_openai_without_prefix_and_with_masks_is_read(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "gpt2")
    wanted = load_published(folder).state_dict()
    tensors = load_file(folder / "model.safetensors")
    bare = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    bare["h.0.attn.bias"] = torch.ones(16, 16).tril().view(1, 1, 16, 16)
    bare["lm_head.weight"] = bare["wte.weight"].clone()
    save_file(bare, folder / "model.safetensors")
    found = load_published(folder).state_dict()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_bfloat16_weights_become_float32(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    tensors = {name: tensor.bfloat16() for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors")
    found = load_published(folder).state_dict()
    assert torch.equal(found["norm.weight"], tensors["model.norm.weight"].float())
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}


def test_pickle_with_code_is_refused_without_running_it(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    folder = folder_of(tmp_path)
    (folder / "model.safetensors").unlink()
    torch.save({"model.norm.weight": Trap()}, folder / "model.pth")
    with pytest.raises(CorruptFileError, match="tensors alone"):
        load_published(folder)
    assert not (tmp_path / "ran").exists()


def test_incomplete_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config\.json, found none"):
        load_published(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match="must be JSON"):
        load_published(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(their_config("llama")))
    with pytest.raises(InputError, match=r"must hold model\.safetensors"):
        load_published(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not one")
    with pytest.raises(CorruptFileError, match="must be a safetensors file"):
        load_published(tmp_path)


def test_index_without_its_shards_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    write_weights(tensors, folder, shard_bytes=500)
    next(folder.glob("model-00002-*")).unlink()
    with pytest.raises(CorruptFileError, match="lacks"):
        load_published(folder)
