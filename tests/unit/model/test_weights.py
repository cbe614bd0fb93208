"""Trained models on disk: what is written comes back, and anything else is refused."""

import errno
import resource
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from model.export.saving import save_tensors, save_weights
from model.families.rope.config import RopeConfig
from model.families.rope.network import RopeModel
from model.pretrained.weights import ModelDescription, load_description, load_model, save_description
from storage.errors import CorruptFileError, Fault

CONFIG = RopeConfig(vocab_size=17, n_layers=2, n_heads=2, n_kv_heads=1, d_model=8, d_ff=12, max_seq_len=8)
DESCRIPTION = ModelDescription(model=CONFIG, tokenizer_digest="ab" * 32, steps=7)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    weights, described = tmp_path / "model.safetensors", tmp_path / "model.json"
    torch.manual_seed(0)
    save_weights(RopeModel(CONFIG).state_dict(), weights)
    save_description(DESCRIPTION, described)
    return weights, described


def test_saved_model_comes_back_with_the_same_weights(files: tuple[Path, Path]) -> None:
    torch.manual_seed(0)
    wanted = RopeModel(CONFIG).state_dict()
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
        state["head.weight"] = state["embed_tokens.weight"].clone()
    else:
        changed = {"shape": weight[:-1].clone(), "type": weight.half(), "nan": weight * float("nan")}
        state["norm.weight"] = changed[damage]
    save_file(state, files[0])
    with pytest.raises(Fault, match=r"head\.weight" if damage == "unknown" else r"norm\.weight"):
        load_model(*files)


def test_tensors_that_the_disk_does_not_take_raise_its_error(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))  # stands for a full disk
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            save_tensors({"a.weight": torch.zeros(100_000)}, tmp_path / "model.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(tmp_path / "model.safetensors"))
    assert list(tmp_path.iterdir()) == []


def test_tensors_in_a_folder_that_is_missing_raise_the_error_of_the_disk(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        save_tensors({"a.weight": torch.zeros(3)}, tmp_path / "missing" / "model.safetensors")
    assert caught.value.filename == str(tmp_path / "missing" / "model.safetensors")


def test_cut_weights_file_is_damaged(files: tuple[Path, Path]) -> None:
    files[0].write_bytes(files[0].read_bytes()[:-10])
    with pytest.raises(CorruptFileError, match="safetensors"):
        load_model(*files)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"model": {}, "tokenizer_digest": "", "steps": -1}'])
def test_description_of_something_else_is_damaged(files: tuple[Path, Path], text: str) -> None:
    files[1].write_text(text)
    with pytest.raises(CorruptFileError, match="train the model again"):
        load_model(*files)
