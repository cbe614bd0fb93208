"""A model in one file: what comes back, and what is refused without running anything."""

import os
import pickle
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from model.families.gpt2.config import GPT2Config
from model.families.registry import build_model
from model.families.rope.config import RopeConfig
from model.families.world.config import WorldConfig
from model.families.world.presets import WORLD_1M
from model.layers.language_model import LanguageModel
from model.notebook.files import load, save
from model.notebook.fit import fit
from storage.config import changed
from storage.errors import InputError

Config = GPT2Config | RopeConfig | WorldConfig
GPT2 = GPT2Config(n_layers=1, n_heads=2, d_model=8, vocab_size=32, max_seq_len=16)
ROPE = RopeConfig(n_layers=1, n_heads=2, n_kv_heads=1, d_model=8, d_ff=12, vocab_size=32, max_seq_len=16)
WORLD = changed(
    WORLD_1M, d_model=16, n_heads=2, n_kv_heads=1, head_dim=8, n_key_heads=1, key_dim=8, n_value_heads=2,
    value_dim=8, num_experts=4, top_k=2, d_expert=8, d_shared=8, context_rank=4, vocab_size=32, max_seq_len=16,
)  # fmt: skip
CONFIGS: dict[str, Config] = {
    "gpt2": GPT2,
    "rope": ROPE,
    "rope-untied": changed(ROPE, tie_embeddings=False),
    "rope-gelu": changed(ROPE, feed_forward="gelu", n_kv_heads=2),
    "world": WORLD,
    "hybrid": changed(WORLD, router="softmax_aux", context_rank=0, n_tones=0, n_fields=0),
}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def build(config: Config = ROPE) -> LanguageModel:
    """A model in which no tensor has its initial value."""
    torch.manual_seed(1)
    model = build_model(config)
    for value in model.state_dict().values():
        value += 0.05 * torch.randn_like(value)
    return model.eval()


def ids(rows: int = 2) -> Tensor:
    return torch.randint(0, 32, (rows, 9), generator=torch.Generator().manual_seed(0))


def test_a_model_saved_again_gives_the_same_bytes(tmp_path: Path) -> None:
    model = build()
    contents = set()
    for _ in range(20):  # two entries of metadata would stand in either order, by chance
        save(model, tmp_path / "model.safetensors")
        contents.add((tmp_path / "model.safetensors").read_bytes())
    assert len(contents) == 1


@pytest.mark.parametrize("name", CONFIGS)
def test_a_saved_model_gives_the_same_logits_bit_for_bit(tmp_path: Path, name: str) -> None:
    model = build(CONFIGS[name])
    path = tmp_path / "model.safetensors"
    save(model.train(), path)
    found = load(path)
    assert found.config == model.config
    assert not any(module.training for module in found.modules())
    with torch.inference_mode():
        assert torch.equal(found(ids()), model.eval()(ids()))
    for key, value in model.state_dict().items():
        assert torch.equal(found.state_dict()[key], value), key


def test_the_routers_bias_is_part_of_a_saved_model(tmp_path: Path) -> None:
    model = build(WORLD)
    save(model, tmp_path / "model.safetensors")
    stored = load_file(tmp_path / "model.safetensors")
    biases = [name for name in stored if name.endswith("e_score_correction_bias")]
    assert len(biases) == 8
    assert not any(name.endswith(".load") for name in stored), "counts of tokens are no part of a model"
    for name in biases:
        assert torch.equal(stored[name], dict(model.named_buffers())[name])


def test_a_trained_model_comes_back(tmp_path: Path) -> None:
    model = build_model(WORLD)
    fit(model, [ids(4)], num_epochs=2, learning_rate=1e-2, device="cpu")
    save(model, tmp_path / "model.safetensors")
    found = load(tmp_path / "model.safetensors")
    with torch.inference_mode():
        assert torch.equal(found(ids()), model(ids()))
    twice = [fit(one, [ids(4)], learning_rate=1e-2, device="cpu").train_losses for one in (model, found)]
    assert twice[0] == twice[1]


def test_training_a_loaded_model_leaves_its_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save(build(), path)
    before = path.read_bytes()
    fit(load(path), [ids()], learning_rate=0.1, device="cpu")
    assert path.read_bytes() == before


def test_half_precision_stays(tmp_path: Path) -> None:
    model = build(WORLD).bfloat16()
    save(model, tmp_path / "model.safetensors")
    found = load(tmp_path / "model.safetensors")
    assert {key: value.dtype for key, value in found.state_dict().items()} == {
        key: value.dtype for key, value in model.state_dict().items()
    }


def test_save_makes_the_folder_and_replaces_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "model.safetensors"
    save(build(), str(path))
    save(build(GPT2), path)
    assert load(str(path)).config == GPT2
    assert [file.name for file in path.parent.iterdir()] == ["model.safetensors"]


def test_a_failed_save_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.mkdir()
    with pytest.raises(OSError, match=r"model\.safetensors"):
        save(build(), path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["model.pth", "model.bin", "model"])
def test_save_refuses_another_format(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"\.safetensors"):
        save(build(), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_save_refuses_a_wrapped_model(tmp_path: Path) -> None:
    wrapper: Any = nn.Sequential(build())
    with pytest.raises(ValueError, match="Sequential"):
        save(wrapper, tmp_path / "model.safetensors")


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_state_dict_is_read_with_its_config(tmp_path: Path, name: str, zipped: bool) -> None:
    model, path = build(CONFIGS[name]), tmp_path / "model.pth"
    torch.save(model.state_dict(), path, _use_new_zipfile_serialization=zipped)
    found = load(path, CONFIGS[name])
    with torch.inference_mode():
        assert torch.equal(found(ids()), model(ids()))
    with pytest.raises(InputError, match="config"):
        load(path)


def test_safetensors_of_others_are_read_with_their_config(tmp_path: Path) -> None:
    model, path = build(), tmp_path / "model.safetensors"
    save_file(model.state_dict(), path)
    with torch.inference_mode():
        assert torch.equal(load(path, ROPE)(ids()), model(ids()))
    with pytest.raises(InputError, match="config"):
        load(path)


class Command:
    """Unpickling it runs a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


@pytest.mark.parametrize("kind", ["zip", "legacy", "plain-pickle"])
@pytest.mark.parametrize("suffix", [".pth", ".pt"])
def test_code_in_a_file_is_refused_and_not_run(tmp_path: Path, kind: str, suffix: str) -> None:
    path, witness = tmp_path / f"model{suffix}", tmp_path / "it-ran"
    content = {**build().state_dict(), "more": Command(f"touch {witness}")}
    if kind == "plain-pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(InputError, match="only tensors") as caught:
        load(path, ROPE)
    assert not witness.exists()
    assert "weights_only" not in str(caught.value), "torch's advice to read it nevertheless is not passed on"
    if kind == "zip":
        assert "posix.system" in str(caught.value)
        torch.load(path, weights_only=False)
        assert witness.exists(), "the file is one that would have run"


def test_a_pickled_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save(build(), path)
    with pytest.raises(InputError, match=r"RopeModel"):
        load(path, ROPE)


FOREIGN: dict[str, tuple[Any, str]] = {
    "tensor": (torch.zeros(3), "Tensor as 'the whole'"),
    "checkpoint": ({"model": {"a": torch.zeros(3)}, "step": 3}, "dict as 'model'"),
    "number": ({"norm.weight": 3.0}, "float as 'norm.weight'"),
    "numbered": ({0: torch.zeros(3)}, "Tensor as 0"),
}


@pytest.mark.parametrize(("content", "found"), FOREIGN.values(), ids=FOREIGN)
def test_what_is_no_state_dict_is_refused(tmp_path: Path, content: Any, found: str) -> None:
    torch.save(content, tmp_path / "model.pth")
    with pytest.raises(InputError, match=found):
        load(tmp_path / "model.pth", ROPE)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_damaged_files_are_refused(tmp_path: Path) -> None:
    """Cut or overwritten anywhere, a file gives a model, where only a number changed, or InputError."""
    chance = random.Random(0)
    whole = tmp_path / "whole.safetensors"
    save(build(), whole)
    torch.save(build().state_dict(), tmp_path / "zip.pth")
    torch.save(build().state_dict(), tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    refused = 0
    for original in ("whole.safetensors", "zip.pth", "legacy.pth"):
        data = (tmp_path / original).read_bytes()
        path = tmp_path / f"damaged{Path(original).suffix}"
        cuts = [b"", data[:7], data[: len(data) // 2], data[:-1], bytes(1000), b"version https://git-lfs"]
        for _ in range(150):
            flipped = bytearray(data)
            flipped[chance.randrange(min(len(data), 1500))] = chance.randrange(256)
            cuts.append(bytes(flipped))
        for damaged in cuts:
            path.write_bytes(damaged)
            try:
                load(path, None if original.startswith("whole") else ROPE)
            except InputError:
                refused += 1
    assert refused > 150


@pytest.mark.parametrize(
    "other",
    [changed(ROPE, d_model=16), changed(ROPE, n_layers=2), changed(ROPE, tie_embeddings=False), GPT2, WORLD],
    ids=["wider", "deeper", "untied", "gpt2", "world"],
)
def test_weights_of_another_config_are_refused(tmp_path: Path, other: Config) -> None:
    torch.save(build().state_dict(), tmp_path / "model.pth")
    with pytest.raises(InputError, match=f"family '{other.family}'") as caught:
        load(tmp_path / "model.pth", other)
    assert len(str(caught.value)) < 1000


def test_a_config_that_contradicts_the_file_is_refused(tmp_path: Path) -> None:
    """Such as other heads in the same shapes, which would give another model without a complaint."""
    path = tmp_path / "model.safetensors"
    save(build(), path)
    assert load(path, ROPE).config == ROPE
    with pytest.raises(InputError, match="rope_theta=10000"):
        load(path, changed(ROPE, rope_theta=500.0))


def test_a_description_of_another_release_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save(build(), path)
    with safe_open(path, framework="pt") as file:
        (header,) = [name for name in file.metadata() if name != "format"]
        described = file.metadata()[header]
    for text in ("{}", "not JSON", described.replace('"d_ff"', '"width"')):
        save_file(load_file(path), path, metadata={header: text})
        with pytest.raises(InputError, match="this release"):
            load(path)


@pytest.mark.parametrize("name", ["none.safetensors", "none.pth"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError, match=name):
        load(tmp_path / name, ROPE)
