"""A published world model brings the code that trained it: it must work where this package is not."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor, nn

from model.families.presets import PRESETS
from model.families.world.config import WorldConfig
from model.families.world.export.folder_code import code_files
from model.families.world.network import WorldModel
from model.generation.generate import generate
from model.pretrained.check import check_folder
from model.pretrained.folder import load_published, write_folder
from storage.config import changed
from storage.errors import Fault, InputError
from storage.formats.tokens import EOT, FIELD, TONE

CONFIG = changed(PRESETS["world-1m"], max_seq_len=100)
assert isinstance(CONFIG, WorldConfig)
TONE_ID, FIELD_ID = 1, 2

Elsewhere = tuple[WorldModel, dict[str, Tensor], dict[str, Any], Path]
"""Model, what the other process computed, what it reported, and the folder of the experiment."""

ELSEWHERE = """
    import json, sys

    class Blocked:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in ("model", "storage", "tasks", "flows"):
                raise ImportError(f"{name} is not there")

    sys.meta_path.insert(0, Blocked())
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    folder, work = sys.argv[1:]
    given = load_file(f"{work}/given.safetensors")
    options = dict(local_files_only=True, trust_remote_code=True)
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, **options)
    model.eval()
    out = {}
    with torch.inference_mode():
        out["logits"] = model(given["ids"]).logits
        mask = given["mask"]
        out["left"] = model(given["left"], attention_mask=mask).logits
        out["right"] = model(given["left"].flip(1), attention_mask=mask.flip(1)).logits
        first = model(given["ids"][:, :70], use_cache=True)
        second = model(given["ids"][:, 70:], past_key_values=first.past_key_values, use_cache=True)
        out["continued"] = torch.cat((first.logits, second.logits), dim=1)
        out["last"] = model(given["ids"], logits_to_keep=1).logits
        out["loss"] = model(given["ids"], labels=given["labels"]).loss
    for name, settings in {"cached": {}, "uncached": {"use_cache": False}}.items():
        out[name] = model.generate(given["ids"][:, :36], do_sample=False, max_new_tokens=64, **settings)
    out["padded"] = model.generate(given["left"], attention_mask=mask, do_sample=False, max_new_tokens=8)
    out["budget"] = model.generate_within_budget(given["ids"], 24, kv_budget=80)
    classes = model.classify(given["left"], attention_mask=mask)
    out["tone"], out["field"] = classes
    model.save_pretrained(f"{work}/saved")
    again = AutoModelForCausalLM.from_pretrained(f"{work}/saved", **options).eval()
    out["again"] = again(given["ids"]).logits.detach()
    narrow = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, **options)
    for mean_resizing in (True, False):
        again.resize_token_embeddings(again.config.vocab_size + 5, mean_resizing=mean_resizing)
    out["resized"] = again(given["ids"]).logits.detach()
    try:
        again.set_output_embeddings(again.get_input_embeddings())
    except ValueError as error:
        refused = str(error)
    config = AutoConfig.from_pretrained(folder, **options)
    new = AutoModelForCausalLM.from_config(config, trust_remote_code=True)
    errors = []
    for wrong in ([[1, 0, 1]], [[1, 1, 0]]):
        try:
            model(given["ids"][:1, :3], attention_mask=torch.tensor(wrong), use_cache=True)
        except ValueError as error:
            errors.append(str(error))
    model.config.has_trained_heads = False
    try:
        model.classify(given["ids"])
    except ValueError as error:
        untrained = str(error)
    save_file({name: tensor.contiguous() for name, tensor in out.items()}, f"{work}/out.safetensors")
    report = {
        "info": {name: sorted(map(str, found)) for name, found in info.items()},
        "class": type(model).__name__,
        "module": type(model.model).__module__,
        "parameters": model.num_parameters(),
        "dtypes": {name: str(tensor.dtype) for name, tensor in narrow.state_dict().items()},
        "config": [config.hidden_size, config.num_hidden_layers, config.expert_scale, config.tone_names],
        "errors": errors,
        "refused": refused,
        "sampled": [new.generation_config.top_k, config.top_k],
        "untrained": untrained,
    }
    print(json.dumps(report))
"""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def make_model(config: WorldConfig = CONFIG) -> WorldModel:
    """Return a model whose every part acts, the context layer and the routers' bias included."""
    torch.manual_seed(5)
    model = WorldModel(config).eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if "gain_" in name:
                tensor.uniform_(0.2, 1.0)
            elif name.endswith("e_score_correction_bias"):
                tensor.normal_(std=0.05)
            else:
                tensor += torch.randn_like(tensor) * 0.1
    return model


def make_tokenizer(folder: Path) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=[EOT, TONE, FIELD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the quick brown fox, the lazy dog " * 9] * 3, trainer)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer


def write(model: WorldModel, work: Path) -> tuple[Path, Tokenizer]:
    tokenizer, folder = make_tokenizer(work), work / "my-world.1"
    folder.mkdir()
    names = {"tone": [f"tone{i}" for i in range(6)], "field": [f"field{i}" for i in range(12)]}
    size = tokenizer.get_vocab_size()
    write_folder(model, work / "tokenizer.json", 0, size, folder, has_trained_heads=True, class_names=names)
    return folder, tokenizer


def given_tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 260, (2, 90), generator=generator)
    left, mask = ids[:, :40].clone(), torch.ones(2, 40, dtype=torch.long)
    left[1, :15], mask[1, :15] = 0, 0
    labels = ids.clone()
    labels[:, :10] = -100
    return {"ids": ids, "left": left, "mask": mask, "labels": labels}


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Elsewhere:
    """Publish a model and use it in a process that cannot import this package."""
    work = tmp_path_factory.mktemp("world")
    model = make_model()
    folder, _ = write(model, work)
    save_file(given_tensors(), work / "given.safetensors")
    done = subprocess.run(
        [sys.executable, "-I", "-c", textwrap.dedent(ELSEWHERE), str(folder), str(work)],
        cwd=work,
        env={"HF_HOME": str(work / "home"), "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin", "HOME": str(work)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "generation flags" not in done.stderr
    return model, load_file(work / "out.safetensors"), json.loads(done.stdout.splitlines()[-1]), work


def close(found: Tensor, wanted: Tensor) -> None:
    """The code is the same; only sums of other shapes may come in another order."""
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-5 + 1e-4 * float(wanted.square().mean().sqrt()))


def test_all_weights_and_buffers_are_loaded_and_none_is_left(elsewhere: Elsewhere) -> None:
    model, _, report, _ = elsewhere
    assert not any(report["info"].values())
    assert report["class"] == "WorldForCausalLM"
    assert report["module"].startswith("transformers_modules.")
    assert report["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert report["config"] == [64, 8, 3**0.5, [f"tone{i}" for i in range(6)]]


def test_logits_are_equal(elsewhere: Elsewhere) -> None:
    model, out, _, _ = elsewhere
    given = given_tensors()
    with torch.inference_mode():
        wanted = model(given["ids"])
        alone = model(given["left"][1:, 15:])
    close(out["logits"], wanted)
    close(out["continued"], wanted)
    close(out["last"], wanted[:, -1:])
    close(out["left"][1:, 15:], alone)
    with torch.inference_mode():
        close(out["right"][1:, :25], model(given["left"][1:, 15:].flip(1)))
    loss = nn.functional.cross_entropy(wanted[:, 9:-1].flatten(0, 1), given["ids"][:, 10:].flatten())
    close(out["loss"], loss)


def test_generated_text_is_equal_with_and_without_cache(elsewhere: Elsewhere) -> None:
    model, out, _, work = elsewhere
    given = given_tensors()
    used = Tokenizer.from_file(str(work / "tokenizer.json")).get_vocab_size()
    settings: dict[str, Any] = {"stop_tokens": 0, "suppress_tokens": (TONE_ID, FIELD_ID, *range(used, 1024))}
    wanted = generate(model, given["ids"][:, :36], 64, **settings)
    assert out["cached"].tolist() == wanted.tolist()
    assert out["uncached"].tolist() == wanted.tolist()
    padded = generate(model, given["left"], 8, attention_mask=given["mask"], **settings)
    assert out["padded"].tolist() == padded.tolist()
    budget = generate(model, given["ids"], 24, kv_budget=80, **settings)
    assert out["budget"].tolist() == budget.tolist()


def test_classes_are_read_at_the_probes(elsewhere: Elsewhere) -> None:
    model, out, _, _ = elsewhere
    given = given_tensors()
    for row, start in ((0, 0), (1, 15)):
        text = given["left"][row : row + 1, start:]
        with torch.inference_mode():
            hidden = model.hidden(torch.cat((text, torch.tensor([[0, TONE_ID, FIELD_ID]])), dim=1))[0]
            tone, field = model.tone_head(hidden[-2]).softmax(-1), model.field_head(hidden[-1]).softmax(-1)
        close(out["tone"][row], tone)
        close(out["field"][row], field)


def test_heads_that_were_not_trained_are_not_asked(elsewhere: Elsewhere) -> None:
    assert "must have trained classification heads" in elsewhere[2]["untrained"]


def test_what_transformers_saves_again_loads_in_both(elsewhere: Elsewhere) -> None:
    model, out, _, work = elsewhere
    close(out["again"], out["logits"])
    again = load_published(work / "saved")
    assert again.config == model.config
    state = again.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_small_steps_stay_in_float32_when_loaded_in_bfloat16(elsewhere: Elsewhere) -> None:
    dtypes = elsewhere[2]["dtypes"]
    kept = ("e_score_correction_bias", "A_log", "dt_bias", "gain_drop", "gain_decay", "gain_write")
    for name, dtype in dtypes.items():
        assert dtype == ("torch.float32" if name.endswith(kept) else "torch.bfloat16"), name


def test_token_embedding_can_be_resized(elsewhere: Elsewhere) -> None:
    _, out, report, _ = elsewhere
    rows = CONFIG.vocab_size
    assert out["resized"].shape[-1] == rows + 10
    assert torch.equal(out["resized"][..., :rows], out["again"])
    assert out["resized"][..., rows:].abs().max() < out["again"].abs().max()  # new tokens do not win
    assert "set_input_embeddings" in report["refused"]


def test_number_of_experts_is_no_setting_of_sampling(elsewhere: Elsewhere) -> None:
    assert elsewhere[2]["sampled"] == [None, CONFIG.top_k]


def test_head_of_its_own_is_resized_with_the_embedding(tmp_path: Path) -> None:
    from model.families.world.export.code.configuration_world import WorldConfig as PublishedConfig
    from model.families.world.export.code.modeling_world import WorldForCausalLM

    fields = changed(CONFIG, tie_embeddings=False, vocab_size=40).identity()
    model = WorldForCausalLM(PublishedConfig(**{k: v for k, v in fields.items() if k != "family"})).eval()
    ids = torch.arange(12)[None]
    with torch.inference_mode():
        before = model(ids).logits
        model.resize_token_embeddings(47)
        after = model(ids).logits
    assert after.shape[-1] == 47
    torch.testing.assert_close(after[..., :40], before, rtol=0, atol=1e-5)


def test_masks_that_the_cache_cannot_follow_are_refused(elsewhere: Elsewhere) -> None:
    errors = elsewhere[2]["errors"]
    assert len(errors) == 2
    assert all("attention_mask must be 1" in error for error in errors)


def test_check_accepts_the_folder_and_leaves_no_modules(tmp_path: Path) -> None:
    model = make_model(changed(CONFIG, tie_embeddings=False))
    folder, tokenizer = write(model, tmp_path)
    before, path = set(sys.modules), list(sys.path)
    check = check_folder(folder, model, tokenizer, (), 0, tokenizer.get_vocab_size())
    assert check.generated_tokens == 64
    assert check.logit_difference <= check.logit_tolerance
    assert not [name for name in set(sys.modules) - before if name.startswith("transformers_modules")]
    assert sys.path == path


def test_other_code_is_refused_before_it_runs(tmp_path: Path) -> None:
    model = make_model()
    folder, tokenizer = write(model, tmp_path)
    code = folder / "basic.py"
    code.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n" + code.read_text())
    with pytest.raises(Fault, match="its code differ"):
        check_folder(folder, model, tokenizer, (), 0, tokenizer.get_vocab_size())
    assert not (tmp_path / "ran").exists()


def test_every_file_of_code_needs_torch_and_transformers_alone(tmp_path: Path) -> None:
    from transformers.dynamic_module_utils import get_imports, get_relative_imports

    files = code_files()
    assert {"modeling_world.py", "configuration_world.py", "network.py", "delta_net.py"} <= files.keys()
    for name, source in files.items():
        (tmp_path / name).write_text(source)
        foreign = set(get_imports(tmp_path / name)) - sys.stdlib_module_names
        assert foreign <= {"torch", "transformers"}, name
        assert {f"{module}.py" for module in get_relative_imports(tmp_path / name)} <= files.keys(), name


def test_published_config_of_another_shape_is_refused(tmp_path: Path) -> None:
    folder, _ = write(make_model(), tmp_path)
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "n_experts": 3}))
    with pytest.raises(InputError, match="n_experts"):
        load_published(folder)
