"""Published folders: transformers computes the same from them and the other way round; what differs is found."""

import copy
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from model.export.fields import Fields
from model.families.gpt2.config import GPT2Config
from model.families.gpt2.export import from_gpt2
from model.families.registry import build_model
from model.families.rope.config import RopeConfig
from model.families.rope.gpt_neox import from_gpt_neox
from model.families.rope.llama import from_llama
from model.families.world.config import WorldConfig
from model.families.world.export.qwen3_next import from_qwen3_next
from model.generation.generate import generate
from model.layers.language_model import LanguageModel
from model.pretrained.architectures import architecture_for, architecture_of_type
from model.pretrained.check import check_folder
from model.pretrained.folder import load_published, write_folder
from storage.config import changed
from storage.errors import Fault
from storage.formats.tokens import EOT, FIELD, TONE

TEXTS = ("Hello, world", "Привет, мир", "👩‍🚀 e\u0301 漢字", "  spaces \n\ttabs ", "")

ROPE = RopeConfig(
    vocab_size=320, n_layers=2, n_heads=4, n_kv_heads=2, d_model=32, d_ff=48, max_seq_len=96, rope_theta=500.0
)
GPT2 = GPT2Config(vocab_size=320, n_layers=2, n_heads=4, d_model=32, max_seq_len=96, norm_eps=1e-4)
GELU = changed(ROPE, feed_forward="gelu", n_kv_heads=4)
HYBRID = WorldConfig(
    vocab_size=320, max_seq_len=96, n_superblocks=1, d_model=32, n_heads=4, n_kv_heads=2, head_dim=16,
    n_key_heads=2, key_dim=8, n_value_heads=4, value_dim=16, num_experts=6, top_k=2, d_expert=16, d_shared=24,
    router="softmax_aux",
)  # fmt: skip
CONFIGS: dict[str, Any] = {
    "gpt2": GPT2,
    "llama-grouped-tied": ROPE,
    "llama-untied": changed(ROPE, tie_embeddings=False, n_kv_heads=4, norm_eps=1e-3),
    "gpt-neox-tied": GELU,
    "gpt-neox-untied": changed(GELU, tie_embeddings=False),
    "qwen3-next-tied": HYBRID,
    "qwen3-next-untied": changed(HYBRID, tie_embeddings=False, n_superblocks=2, route_scale=1.5),
}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=[EOT, TONE, FIELD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the quick brown fox, the lazy dog; мир миру мир " * 5], trainer)
    assert tokenizer.token_to_id(EOT) == 0
    return tokenizer


def make_model(config: Any) -> LanguageModel:
    """Return a model whose every weight matters: norms and biases away from where they start, larger matrices."""
    torch.manual_seed(7)
    model = build_model(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn_like(parameter) * 0.1
    return model


def write(model: LanguageModel, tokenizer: Tokenizer, folder: Path, **options: Any) -> Path:
    folder.mkdir(parents=True)
    tokenizer.save(str(folder.parent / "tokenizer.json"))
    write_folder(model, folder.parent / "tokenizer.json", 0, tokenizer.get_vocab_size(), folder, **options)
    return folder


def load(folder: Path) -> tuple[Any, dict[str, Any]]:
    from transformers import AutoModelForCausalLM

    loader: Any = AutoModelForCausalLM.from_pretrained
    model, info = loader(folder, local_files_only=True, output_loading_info=True)
    return model.eval(), info


def random_ids(batch: int = 2, length: int = 90) -> Tensor:
    return torch.randint(3, 300, (batch, length), generator=torch.Generator().manual_seed(length))


def assert_same_logits(ours: LanguageModel, theirs: Any, ids: Tensor) -> None:
    """Require logits that differ by rounding alone, measured as what float32 costs our own model."""
    with torch.inference_mode():
        wanted, found, exact = ours(ids), theirs(input_ids=ids).logits, copy.deepcopy(ours).double()(ids)
    noise = float((wanted - exact).abs().max())
    tolerance = 2e-5 + 1e-4 * float(wanted.square().mean().sqrt()) + 4 * noise
    assert tolerance < 0.01 * float(wanted.square().mean().sqrt())
    assert float((wanted - found).abs().max()) <= tolerance


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_transformers_computes_the_same(tmp_path: Path, config: Any, tokenizer: Tokenizer) -> None:
    model = make_model(config)
    theirs, info = load(write(model, tokenizer, tmp_path / "hf"))
    assert type(theirs).__name__ == architecture_for(config).name
    assert not any(info.values()), info
    assert_same_logits(model, theirs, random_ids())
    assert theirs.num_parameters() == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_folder_read_again_is_the_model(tmp_path: Path, config: Any, tokenizer: Tokenizer) -> None:
    model = make_model(config)
    again = load_published(write(model, tokenizer, tmp_path / "hf"))
    assert type(again) is type(model)
    kept = {"route_scale"} if isinstance(config, WorldConfig) else set()  # it is in the weights now
    assert again.config.model_dump(exclude=kept) == config.model_dump(exclude=kept)
    assert again.training is False
    ids = random_ids()
    with torch.inference_mode():
        torch.testing.assert_close(again(ids), model(ids), rtol=1e-4, atol=1e-4)


def their_models() -> dict[str, Callable[[], Any]]:
    from transformers import (
        GPT2Config,
        GPT2LMHeadModel,
        GPTNeoXConfig,
        GPTNeoXForCausalLM,
        LlamaConfig,
        LlamaForCausalLM,
        Qwen3NextConfig,
        Qwen3NextForCausalLM,
    )

    gpt2 = GPT2Config(vocab_size=320, n_embd=32, n_layer=2, n_head=4, n_positions=96)
    llama = {
        "vocab_size": 320, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 1, "rope_parameters": {"rope_theta": 77.0},
    }  # fmt: skip
    neox = GPTNeoXConfig(
        vocab_size=320, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        rotary_pct=1.0, use_parallel_residual=False,
    )  # fmt: skip
    qwen = Qwen3NextConfig(
        vocab_size=320, hidden_size=32, num_hidden_layers=8, num_attention_heads=2, num_key_value_heads=1,
        head_dim=16, linear_num_key_heads=2, linear_num_value_heads=2, linear_key_head_dim=8,
        linear_value_head_dim=8, num_experts=4, num_experts_per_tok=3, moe_intermediate_size=16,
        shared_expert_intermediate_size=8, rope_parameters={"rope_theta": 1e5, "partial_rotary_factor": 0.5},
    )  # fmt: skip
    return {
        "gpt2": lambda: GPT2LMHeadModel(gpt2),
        "llama-tied": lambda: LlamaForCausalLM(LlamaConfig(**llama, tie_word_embeddings=True)),
        "llama-untied": lambda: LlamaForCausalLM(LlamaConfig(**llama)),
        "gpt-neox": lambda: GPTNeoXForCausalLM(neox),
        "qwen3-next": lambda: Qwen3NextForCausalLM(qwen),
    }


def make_theirs(name: str) -> Any:
    torch.manual_seed(3)
    theirs = their_models()[name]().eval()
    with torch.no_grad():
        for parameter in theirs.parameters():  # norms too: an error would hide where they start
            parameter += torch.randn_like(parameter) * 0.1
    return theirs


THEIRS = ("gpt2", "llama-tied", "llama-untied", "gpt-neox", "qwen3-next")


@pytest.mark.parametrize("name", THEIRS)
@pytest.mark.parametrize("shards", ["whole", "sharded", "pickled"])
def test_model_of_transformers_is_imported_with_equal_logits(tmp_path: Path, name: str, shards: str) -> None:
    theirs = make_theirs(name)
    theirs.save_pretrained(tmp_path, max_shard_size="40KB" if shards == "sharded" else "1GB")
    assert (tmp_path / "model.safetensors.index.json").exists() == (shards == "sharded")
    if shards == "pickled":
        torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
        (tmp_path / "model.safetensors").unlink()
    assert_same_logits(load_published(tmp_path), theirs, random_ids())


@pytest.mark.parametrize(
    ("name", "convert"),
    [
        ("gpt2", from_gpt2),
        ("llama-untied", from_llama),
        ("gpt-neox", lambda state: from_gpt_neox(state, n_heads=4)),
        ("qwen3-next", from_qwen3_next),
    ],
)
def test_state_dict_in_memory_is_imported_too(name: str, convert: Callable[[Any], Any]) -> None:
    theirs = make_theirs(name)
    fields = Fields(theirs.config.to_diff_dict(), name)
    ours = build_model(architecture_of_type(theirs.config.model_type).read_config(fields)).eval()
    ours.load_state_dict(convert(theirs.state_dict()))
    assert_same_logits(ours, theirs, random_ids())


def test_greedy_text_of_a_batch_equals_transformers(tmp_path: Path, tokenizer: Tokenizer) -> None:
    for number, config in enumerate(CONFIGS.values()):
        model = make_model(config)
        theirs, _ = load(write(model, tokenizer, tmp_path / str(number) / "hf"))
        ids = random_ids(2, 20)
        wanted = theirs.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=64, min_new_tokens=64, do_sample=False
        )
        suppressed = (0, 1, 2, *range(tokenizer.get_vocab_size(), 320))
        found = generate(model, ids, 64, suppress_tokens=suppressed)
        assert found.tolist() == wanted.tolist()


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError(f"the export must not use the network, connected to {arguments[1:]}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.usefixtures("no_network")
def test_folder_passes_the_check_without_network(tmp_path: Path, config: Any, tokenizer: Tokenizer) -> None:
    model = make_model(config)
    folder = write(model, tokenizer, tmp_path / "hf", shard_bytes=30_000)
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    check = check_folder(folder, model, tokenizer, TEXTS, 0, tokenizer.get_vocab_size())
    assert check.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert check.logit_difference <= check.logit_tolerance
    assert (check.texts, check.generated_tokens) == (len(TEXTS), 64)


def test_folder_written_twice_has_the_same_bytes(tmp_path: Path, tokenizer: Tokenizer) -> None:
    first, second = (write(make_model(HYBRID), tokenizer, tmp_path / name / "hf") for name in "ab")
    assert {p.name: p.read_bytes() for p in first.iterdir()} == {p.name: p.read_bytes() for p in second.iterdir()}


def test_weights_are_float32_and_a_tied_head_is_left_out(tmp_path: Path, tokenizer: Tokenizer) -> None:
    tensors = load_file(write(make_model(ROPE), tokenizer, tmp_path / "hf") / "model.safetensors")
    assert "lm_head.weight" not in tensors
    assert tensors["model.layers.1.mlp.down_proj.weight"].shape == (32, 48)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}


def test_probes_and_padding_ids_are_special_and_never_generated(tmp_path: Path, tokenizer: Tokenizer) -> None:
    from transformers import AutoTokenizer

    folder = write(make_model(ROPE), tokenizer, tmp_path / "hf")
    settings = json.loads((folder / "generation_config.json").read_text())
    assert settings["suppress_tokens"] == [1, 2, *range(tokenizer.get_vocab_size(), 320)]
    loaded = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    assert set(loaded.all_special_tokens) == {EOT, TONE, FIELD}
    assert loaded.encode(f"a{TONE}{FIELD}")[-2:] == [1, 2]
    assert loaded.decode([1, 2], skip_special_tokens=True) == ""
    assert set(loaded("a")) == {"input_ids", "attention_mask"}


def test_tokenizer_without_probes_is_published_too(tmp_path: Path) -> None:
    bare = Tokenizer(models.BPE(vocab={EOT: 0, "a": 1}, merges=[]))
    bare.add_special_tokens([EOT])
    folder = write(make_model(changed(ROPE, vocab_size=2)), bare, tmp_path / "hf")
    assert "suppress_tokens" not in json.loads((folder / "generation_config.json").read_text())


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
    "generation": (change_json("generation_config.json", suppress_tokens=list(range(1, 300))), "greedy text"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_folder_that_differs_is_refused(
    tmp_path: Path, tokenizer: Tokenizer, damage: Callable[[Path], None], message: str
) -> None:
    model = make_model(ROPE)
    folder = write(model, tokenizer, tmp_path / "hf")
    damage(folder)
    texts = ("the quick brown fox, the lazy dog; мир миру",)
    with pytest.raises(Fault, match=message):
        check_folder(folder, model, tokenizer, texts, 0, tokenizer.get_vocab_size())


def test_model_that_transformers_cannot_run_is_a_fault(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """A width that the config refuses, since transformers multiplies experts in rows of 16 bytes."""
    hybrid = type(HYBRID).model_construct(**{**dict(HYBRID), "d_expert": 6})
    model = make_model(hybrid)
    folder = write(model, tokenizer, tmp_path / "hf")
    with pytest.raises(Fault, match="transformers cannot run them"):
        check_folder(folder, model, tokenizer, (), 0, tokenizer.get_vocab_size())
