"""Trained models on disk: what is written comes back, and anything else is refused."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from model.config import ModelConfig
from model.transformer import Transformer
from model.weights import TrainedModel, load_description, load_model, save_description, save_weights
from storage.errors import DamagedFile, Fault

CONFIG = ModelConfig(vocab_size=17, n_layers=2, n_heads=2, n_kv_heads=1, d_model=8, d_ff=12, max_seq_len=8)
DESCRIPTION = TrainedModel(model=CONFIG, tokenizer_digest="ab" * 32, steps=7)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    weights, described = tmp_path / "model.safetensors", tmp_path / "model.json"
    torch.manual_seed(0)
    save_weights(Transformer(CONFIG).state_dict(), weights)
    save_description(DESCRIPTION, described)
    return weights, described


def test_saved_model_comes_back_with_the_same_weights(files: tuple[Path, Path]) -> None:
    torch.manual_seed(0)
    wanted = Transformer(CONFIG).state_dict()
    found = load_model(*files)
    assert load_description(files[1]) == DESCRIPTION
    assert not found.training
    assert found.state_dict().keys() == wanted.keys()
    assert all(torch.equal(found.state_dict()[name], wanted[name]) for name in wanted)


def test_same_weights_in_another_order_and_type_give_the_same_bytes(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    state = load_model(*files).state_dict()
    backwards = {name: state[name].double() for name in reversed(state)}
    save_weights(backwards, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == files[0].read_bytes()


@pytest.mark.parametrize("damage", ["missing", "unknown", "shape", "type", "nan"])
def test_weights_of_another_model_are_refused(files: tuple[Path, Path], damage: str) -> None:
    state = dict(load_model(*files).state_dict())
    weight = state["norm.weight"].clone()
    if damage == "missing":
        del state["norm.weight"]
    elif damage == "unknown":
        state["head.weight"] = state["embedding.weight"].clone()
    else:
        changed = {"shape": weight[:-1].clone(), "type": weight.half(), "nan": weight * float("nan")}
        state["norm.weight"] = changed[damage]
    save_file(state, files[0])
    with pytest.raises(Fault, match=r"head\.weight" if damage == "unknown" else r"norm\.weight"):
        load_model(*files)


def test_cut_weights_file_is_damaged(files: tuple[Path, Path]) -> None:
    files[0].write_bytes(files[0].read_bytes()[:-10])
    with pytest.raises(DamagedFile, match="safetensors"):
        load_model(*files)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"model": {}, "tokenizer_digest": "", "steps": -1}'])
def test_description_of_something_else_is_damaged(files: tuple[Path, Path], text: str) -> None:
    files[1].write_text(text)
    with pytest.raises(DamagedFile, match="train the model again"):
        load_model(*files)
