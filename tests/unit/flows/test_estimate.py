"""`pile estimate`: what it says of presets and recipes, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest

from flows.command.main import main
from flows.command.models.gpus import GPUS
from flows.command.parser import build_parser
from flows.recipes.registry import RECIPES
from model.families.estimate import count_parameters
from model.families.presets import PRESETS
from storage.errors import InputError
from storage.registry import load


def call(*arguments: str) -> int:
    options = build_parser().parse_args(["estimate", *arguments])
    code: int = load(options.verb.reference)(options)
    return code


def numbers(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert call(*arguments, "--json") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_235b_model_has_the_stated_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    found = numbers(capsys, "world-235b", "--tokens", "300e9", "--gpus", "64")
    assert (found["parameters"], found["active_parameters"]) == (234_788_390_442, 48_720_676_394)
    assert (found["layers"], found["superblocks"], found["sequence_length"]) == (101, 12, 4096)
    mixed = next(row for row in found["training_states"] if row["states"] == "mixed")
    assert mixed["bytes"] == 16 * 234_788_390_442
    assert (round(mixed["bytes_per_gpu"] / 1e9, 1), mixed["fits"], mixed["min_gpus"]) == (58.7, True, 59)
    training = found["training"]
    assert training["flops"] == pytest.approx(8.97e22, rel=1e-3)
    assert training["gpu_hours"] == pytest.approx(8.97e22 / (989e12 * 0.4 * 3600), rel=1e-3)  # 63,000
    assert training["days"] == pytest.approx(41, abs=0.05)
    assert "cost" not in training


@pytest.mark.parametrize(
    ("gpu", "gpus", "fits"),
    [("h100", 8, False), ("h100", 58, False), ("h100", 59, True), ("h200", 32, False), ("h200", 48, True)],
)
def test_states_of_the_235b_model_fit_or_not(
    gpu: str, gpus: int, fits: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    found = numbers(capsys, "world-235b", "--gpu", gpu, "--gpus", str(gpus))
    assert found["training_states"][0]["fits"] is fits


def test_time_follows_gpu_mfu_and_price(capsys: pytest.CaptureFixture[str]) -> None:
    a100 = numbers(capsys, "world-235b", "--gpu", "a100", "--price", "2")["training"]
    assert a100["gpu_hours"] == pytest.approx(199_700, rel=1e-3)
    assert a100["cost"] == pytest.approx(2 * a100["gpu_hours"])
    slow = numbers(capsys, "world-235b", "--gpu", "a100", "--mfu", "0.2")["training"]
    assert slow["gpu_hours"] == pytest.approx(2 * a100["gpu_hours"])


def test_longer_sequences_cost_attention_only(capsys: pytest.CaptureFixture[str]) -> None:
    short, long = (numbers(capsys, "world-1m", "--sequence-length", n) for n in ("256", "512"))
    kinds = [found["flops_per_token_by_kind"] for found in (short, long)]
    assert kinds[1] == {**kinds[0], "attention": 2 * kinds[0]["attention"]}


def test_recipe_gives_model_and_tokens(capsys: pytest.CaptureFixture[str]) -> None:
    found = numbers(capsys, "demo")
    demo = RECIPES["demo"]()
    assert found["source"] == "recipe"
    assert found["training"]["tokens"] == demo.train.max_steps * demo.train.global_batch_size * 256
    assert (found["vocab_size"], found["sequence_length"]) == (4096, 256)
    assert found["parameters"] == count_parameters(PRESETS["demo"])  # the preset of that name is the same model


def test_recipe_file_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = {
        "based_on": "demo",
        "train_tokenizer": {"vocab_size": 3000},
        "train": {"max_steps": 100, "global_batch_size": 4, "micro_batch_size": 4},
        "pack": {"sequence_length": 128},
    }
    (tmp_path / "own.json").write_text(json.dumps(recipe))
    found = numbers(capsys, str(tmp_path / "own.json"))
    assert found["vocab_size"] == 3008  # the next multiple of 64, as the trainer pads it
    assert found["training"]["tokens"] == 100 * 4 * 128


@pytest.mark.parametrize("name", sorted({*PRESETS, *RECIPES}))
def test_tables_are_printed_for_every_model(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")  # no head is broken
    assert call(name, "--price", "2") == 0
    shown = capsys.readouterr().out
    for word in ("parameters", "active per token", "FLOPs per trained token", "GB per GPU", "GPU hours", "cost"):
        assert word in shown
    assert (" x 8 + 5)" in shown) == ("world family" in shown)


def test_tables_of_the_235b_model_show_the_main_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("world-235b") == 0
    shown = capsys.readouterr().out
    for number in ("234,788,390,442", "48,720,676,394", "101 layers (12 superblocks x 8 + 5)", "58.7", "49,152"):
        assert number in shown
    assert "cost" not in shown


def test_tokens_are_counted_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("demo") == 0
    assert "819,200 tokens are 1.3e+13 FLOPs" in capsys.readouterr().out


def test_unknown_name_lists_presets_and_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["estimate", "world-236b"])
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert all(name in said for name in ("world-236b", *PRESETS, *RECIPES))


@pytest.mark.parametrize(
    "arguments",
    [
        ("--tokens", "0"),
        ("--tokens", "inf"),
        ("--gpu", "zzz"),
        ("--gpus", "0"),
        ("--mfu", "0"),
        ("--mfu", "1.5"),
        ("--mfu", "nan"),
        ("--price", "-1"),
        ("--sequence-length", "0"),
        ("--sequence-length", "1025"),
    ],
    ids=" ".join,
)
def test_impossible_options_are_refused_by_name(arguments: tuple[str, str]) -> None:
    with pytest.raises(InputError, match=arguments[0]):
        call("gpt2-124m", *arguments)


def test_every_gpu_is_listed_in_the_help_and_in_the_refusal_of_another(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, code in ((["--help"], 0), (["demo", "--gpu", "zzz"], 2)):
        with pytest.raises(SystemExit) as stopped:
            main(["estimate", *arguments])
        assert stopped.value.code == code
        said = capsys.readouterr()
        assert all(name in said.out + said.err for name in GPUS)


def test_recipe_that_does_not_train_is_refused_by_the_name_of_the_section(tmp_path: Path) -> None:
    (tmp_path / "off.yaml").write_text("based_on: demo\ntrain: null\nevaluate: null\npublish: null\n")
    with pytest.raises(InputError, match="'off' must have the section train, found it off"):
        call(str(tmp_path / "off.yaml"))


def test_layers_of_the_235b_model_are_101_and_hold_every_parameter(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("world-235b", "--layers", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 101
    assert sum(row["parameters"] for row in rows) == 234_788_390_442
    with pytest.raises(InputError, match="needs a family with a table of its layers, found gpt2"):
        call("gpt2-124m", "--layers")


def test_without_gpus_it_speaks_of_this_machine(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def shown(*arguments: str) -> str:
        with pytest.raises(SystemExit) as stopped:
            main(["estimate", *arguments, "--store", f"{tmp_path}/store"])
        assert stopped.value.code == 0
        return capsys.readouterr().out

    small, large, asked = shown("demo"), shown("world-235b"), shown("demo", "--gpu", "a100")
    assert "this machine: " in small
    assert "it fits" in small
    assert "is unknown before such a model was trained here" in small.replace("\n  ", " ")
    assert "A100" not in small
    assert "H100" not in small
    assert "it does not fit here" in large
    assert "sharded over 64 H100" in large
    assert "sharded over 64 A100" in asked
    assert "this machine" not in asked
    here = json.loads(shown("demo", "--json"))["here"]
    assert here["fits"]
    assert here["measured"] is None
    assert here["needed_bytes"]["training_states"] == 16 * 2_361_024
