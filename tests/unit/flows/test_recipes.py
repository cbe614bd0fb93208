import json
from pathlib import Path

import pytest

from flows.recipes.reading import find_recipe, parse_override
from flows.recipes.registry import RECIPES
from model.families.gpt2.config import GPT2Shape
from model.families.presets import preset_shape
from storage.config import changed
from storage.errors import InputError

PRESET = preset_shape("world-1m")


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_with_a_name_is_valid_and_survives_json(name: str) -> None:
    recipe = find_recipe(name)
    assert recipe.name == name
    assert type(recipe).model_validate_json(recipe.model_dump_json()) == recipe


def test_override_replaces_one_field_and_no_other() -> None:
    before = json.loads(find_recipe("demo").model_dump_json())
    after = json.loads(find_recipe("demo", {"train-tokenizer.vocab_size": 3000}).model_dump_json())
    assert after["train_tokenizer"].pop("vocab_size") == 3000
    assert before["train_tokenizer"].pop("vocab_size") != 3000
    assert after == before


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"train_tokenizer.vocab": 3000}, "train_tokenizer.vocab: the recipe has no such field"),
        ({"tokenizer.vocab_size": 3000}, "no field 'tokenizer'"),
        (
            {"train_tokenizer.vocab_size": "many"},
            "train_tokenizer.vocab_size: must be a whole number .*, found 'many'",
        ),
        (
            {"train_tokenizer.vocab_size": 3000.5},
            "train_tokenizer.vocab_size: must be a whole number .*, found 3000.5",
        ),
        ({"train_tokenizer.vocab_size": -1}, "train_tokenizer.vocab_size: .*of at least 300.*found -1"),
        ({"train.learning_rate": float("inf")}, "learning_rate.*finite"),
        ({"train.max_steps": True}, "train.max_steps: .*whole number.*found true"),
        ({"execution.engine": "magic"}, "execution.engine: .*one of local, deepspeed.*found 'magic'"),
        ({"execution.engine": 3}, "execution.engine: .*found 3"),
        ({"execution.engine.zero_stage": 3}, "execution.engine.zero_stage: the recipe has no such field"),
        (
            {"execution.engine": "deepspeed", "execution.engine.zero_stage": 4},
            "execution.engine.zero_stage: must be one of 0, 1, 2, 3, found 4",
        ),
        ({"name": 3}, "name: must be text, found 3"),
        ({"train.model": 3}, "train.model: a model must be the name of a preset .*found 3$"),
        ({"train.model": None}, "train.model: a model must be the name of a preset .*found null$"),
        ({"train.model": ["a"]}, 'train.model: a model must be the name of a preset .*found \\["a"\\]$'),
        ({"train.model": "world-1m", "train.model.n_tones": 3}, "train.model.n_tones must be 6, .*found 3"),
        ({"train.model": "world-1m", "train.model.n_fields": 11}, "train.model.n_fields must be 12, .*found 11"),
        (
            {"train.model": "world-1m", "train.model.zzz": 3},
            "train.model.zzz: .*see `pile recipes world-1m --full`",
        ),
        ({"train.model.tops": 3}, "train.model.tops: .*see `pile recipes demo --full`"),
        (
            {"train.model.preset": "world-1m", "train.model.family": "gpt2"},
            "train.model: family must be world, as preset world-1m says, found 'gpt2'$",
        ),
    ],
)
def test_override_that_cannot_be_names_field_and_value(overrides: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        find_recipe("demo", overrides)


def test_preset_or_family_replaces_the_model_as_a_whole() -> None:
    assert find_recipe("demo", {"train.model.preset": "world-1m"}).train.model == PRESET
    for overrides in (
        {"train.model.top_k": 2, "train.model.preset": "world-1m"},
        {"train.model.preset": "world-1m", "train.model.family": "world", "train.model.top_k": 2},
    ):
        assert find_recipe("demo", overrides).train.model == changed(PRESET, top_k=2)
    sizes = {"train.model.n_layers": 2, "train.model.n_heads": 2, "train.model.d_model": 16}
    model = find_recipe("world-1m", {"train.model.family": "gpt2", **sizes}).train.model
    assert model == GPT2Shape(n_layers=2, n_heads=2, d_model=16)


def test_model_without_heads_needs_no_classes() -> None:
    model = find_recipe("world-1m", {"train.model.n_tones": 0, "train.model.n_fields": 0}).train.model
    assert model == changed(PRESET, n_tones=0, n_fields=0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.b=3", ("a.b", 3)),
        ("a.b=1e-3", ("a.b", 0.001)),
        ("a.b=true", ("a.b", True)),
        ("a.b=[x, y]", ("a.b", ["x", "y"])),
        ("a.b=http://127.0.0.1:80/x", ("a.b", "http://127.0.0.1:80/x")),
        ("a.b=", ("a.b", None)),
        ("a.b=x=y", ("a.b", "x=y")),
    ],
)
def test_override_text_is_read_as_yaml(text: str, expected: tuple[str, object]) -> None:
    assert parse_override(text) == expected


@pytest.mark.parametrize("text", ["a.b", "=3", "a.b=[x"])
def test_override_text_without_form_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--set"):
        parse_override(text)


def test_recipe_file_changes_the_recipe_it_is_based_on(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("based_on: demo\ntrain_tokenizer: {vocab_size: 3000}\n")
    recipe = find_recipe(str(path))
    assert (recipe.name, recipe.train_tokenizer.vocab_size) == ("mine", 3000)
    assert recipe.pack == find_recipe("demo").pack


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("based_on: nothing\n", "based_on .* must be one of"),
        ("[1, 2]\n", "must hold the fields of a recipe, found a list"),
        ("a: [\n", "line 2, column 1 must be YAML"),
        ("based_on: demo\nfilters: {}\n", "filters: the recipe has no such field"),
    ],
)
def test_recipe_file_that_cannot_be_used_says_why(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match=said):
        find_recipe(str(path))


def test_recipe_that_does_not_exist_names_those_that_do() -> None:
    with pytest.raises(InputError, match=r"demo.*found 'dmo'"):
        find_recipe("dmo")
    with pytest.raises(InputError, match="readable"):
        find_recipe("nowhere.yaml")


@pytest.mark.parametrize(
    "overrides",
    [
        {"execution.engine": "deepspeed", "execution.engine.zero_stage": 3},
        {"execution.engine.name": "deepspeed", "execution.engine.zero_stage": 3},
        {"execution.engine": {"name": "deepspeed", "zero_stage": 3}},
    ],
)
def test_engine_is_a_name_with_its_own_options(overrides: dict[str, object]) -> None:
    execution = find_recipe("demo", overrides).execution
    assert execution.model_dump()["engine"] == {"name": "deepspeed", "zero_stage": 3}
    assert type(execution).model_validate_json(execution.model_dump_json()) == execution
    assert find_recipe("demo", {"execution.engine": "local"}) == find_recipe("demo")


def test_another_kind_of_source_replaces_the_source_as_a_whole(tmp_path: Path) -> None:
    by_flags = find_recipe("demo", {"download.source.kind": "files", "download.source.patterns": ["a/*"]})
    file = tmp_path / "mine.yaml"
    file.write_text("based_on: demo\ndownload: {source: {kind: files, patterns: [a/*]}}\n")
    by_file = find_recipe(str(file))
    assert by_flags.download == by_file.download
    assert by_flags.download.source.model_dump()["patterns"] == ("a/*",)
    same_kind = find_recipe("own-files", {"download.source.kind": "files", "download.source.subset": "Mine"})
    assert same_kind.download.source.model_dump()["patterns"] == ("corpus/*",)


@pytest.mark.parametrize("kind", [{"kind": "miror"}, {}])
def test_source_of_no_kind_is_refused_without_the_password_in_it(kind: dict[str, str]) -> None:
    with pytest.raises(InputError, match="kind") as caught:
        find_recipe("demo", {"download.source": {**kind, "url": "https://user:s3cret@mirror.test/x"}})
    assert "s3cret" not in str(caught.value)
