"""The exported folder: transformers loads it without network, and whatever differs is found."""

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from model.config import ModelConfig
from model.export import LLAMA_NAMES, check_folder, from_llama, to_llama, write_folder
from model.transformer import Transformer
from storage.config import changed
from storage.errors import Fault
from storage.tokens import EOT

TEXTS = ("Hello, world", "Привет, мир", "👩‍🚀 e\u0301 漢字", "  spaces \n\ttabs ", "")

TIED = ModelConfig(vocab_size=320, n_layers=2, n_heads=4, n_kv_heads=2, d_model=32, d_ff=48, max_seq_len=32)
CONFIGS = {"tied": TIED, "untied": changed(TIED, tie_embeddings=False, n_kv_heads=4)}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=[EOT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the quick brown fox, the lazy dog; мир миру мир " * 5], trainer)
    assert tokenizer.token_to_id(EOT) == 0
    return tokenizer


def build_model(config: ModelConfig) -> Transformer:
    torch.set_num_threads(1)
    torch.manual_seed(7)
    return Transformer(config).eval()


def write(folder: Path, config: ModelConfig, tokenizer: Tokenizer) -> Path:
    tokenizer.save(str(folder.parent / "tokenizer.json"))
    folder.mkdir()
    used_vocab = tokenizer.get_vocab_size()
    write_folder(build_model(config), folder.parent / "tokenizer.json", 0, used_vocab, folder)
    return folder


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError(f"the export must not use the network, connected to {arguments[1:]}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.usefixtures("no_network")
def test_folder_passes_the_check_without_network(
    tmp_path: Path, config: ModelConfig, tokenizer: Tokenizer
) -> None:
    folder = write(tmp_path / "hf", config, tokenizer)
    model = build_model(config)
    check = check_folder(folder, model, tokenizer, TEXTS, 0, tokenizer.get_vocab_size())
    assert check.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert check.logit_difference <= 1e-5
    assert (check.texts, check.generated_tokens) == (len(TEXTS), 8)


def test_folder_written_twice_has_the_same_bytes(tmp_path: Path, tokenizer: Tokenizer) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = write(tmp_path / "a" / "hf", TIED, tokenizer)
    second = write(tmp_path / "b" / "hf", TIED, tokenizer)
    assert {p.name: p.read_bytes() for p in first.iterdir()} == {p.name: p.read_bytes() for p in second.iterdir()}


def test_weights_file_holds_llama_names_in_float32(tmp_path: Path, tokenizer: Tokenizer) -> None:
    tensors = load_file(write(tmp_path / "hf", TIED, tokenizer) / "model.safetensors")
    assert "lm_head.weight" not in tensors
    assert tensors["model.layers.1.mlp.down_proj.weight"].shape == (32, 48)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}


def test_padding_ids_are_suppressed_in_generation(tmp_path: Path, tokenizer: Tokenizer) -> None:
    settings = json.loads((write(tmp_path / "hf", TIED, tokenizer) / "generation_config.json").read_text())
    assert settings["suppress_tokens"] == list(range(tokenizer.get_vocab_size(), 320))


def test_names_go_both_ways_and_cover_the_model() -> None:
    state = build_model(CONFIGS["untied"]).state_dict()
    there = to_llama(state)
    assert len(there) == len(state)
    assert from_llama(there).keys() == state.keys()
    assert len(set(LLAMA_NAMES.values())) == len(LLAMA_NAMES)


def test_parameter_of_another_model_is_refused() -> None:
    with pytest.raises(Fault, match="wpe"):
        to_llama({"wpe.weight": torch.zeros(1)})


def change_tensors(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return damage


def change_json(name: str, **fields: object) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))

    return damage


def other_tokenizer(folder: Path) -> None:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["merges"] = content["model"]["merges"][:-20]
    path.write_text(json.dumps(content))


def cut_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-7])


DAMAGES = {
    "missing": (change_tensors(lambda tensors: tensors.pop("model.norm.weight")), "missing_keys"),
    "unexpected": (
        change_tensors(lambda tensors: tensors.update({"model.extra.weight": torch.zeros(2)})),
        "unexpected_keys",
    ),
    "one-number": (change_tensors(lambda tensors: tensors["model.norm.weight"][3:4].add_(1e-3)), "norm.weight"),
    "cut": (cut_weights, "cannot load"),
    "theta": (change_json("config.json", rope_theta=77.0, rope_parameters={"rope_theta": 77.0}), "logits"),
    "epsilon": (change_json("config.json", rms_norm_eps=0.1), "logits"),
    "tokenizer": (other_tokenizer, "token ids"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_folder_that_differs_is_refused(
    tmp_path: Path, tokenizer: Tokenizer, damage: Callable[[Path], None], message: str
) -> None:
    folder = write(tmp_path / "hf", TIED, tokenizer)
    damage(folder)
    texts = ("the quick brown fox, the lazy dog; мир миру",)
    with pytest.raises(Fault, match=message):
        check_folder(folder, build_model(TIED), tokenizer, texts, 0, tokenizer.get_vocab_size())
