"""Changing some fields of a recipe: maps go by key, sections by field, and what there is not is asked about."""

from pathlib import Path
from typing import Any

import pytest

from flows.recipes.reading import find_recipe, parse_override
from flows.recipes.schema import Recipe
from storage.errors import InputError
from tasks.filter.policies import POLICIES, SUBSETS


def from_file(tmp_path: Path, text: str, *options: str) -> Recipe:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return find_recipe(str(path), dict(map(parse_override, options)))


def both_ways(tmp_path: Path, section: str, option: str) -> list[Any]:
    return [from_file(tmp_path, f"based_on: demo\n{section}\n").filter, find_recipe(
        "demo", dict([parse_override(option)])
    ).filter]  # fmt: skip


@pytest.mark.parametrize(
    ("section", "option", "subsets"),
    [
        ("filter: {subsets: {}}", "filter.subsets={}", {}),
        ("filter: {subsets: {Github: null}}", "filter.subsets.Github=null",
         {name: policy for name, policy in SUBSETS.items() if name != "Github"}),
        ("filter: {subsets: {Mine: web}}", "filter.subsets={Mine: web}", {**SUBSETS, "Mine": "web"}),
        ("filter: {subsets: {Github: web}}", "filter.subsets.Github=web", {**SUBSETS, "Github": "web"}),
        ("filter: {subsets: {v1.5: web}}", "filter.subsets.v1.5=web", {**SUBSETS, "v1.5": "web"}),
    ],
    ids=["empty", "out", "in", "changed", "dots"],
)  # fmt: skip
def test_map_is_changed_by_key(tmp_path: Path, section: str, option: str, subsets: dict[str, str]) -> None:
    for found in both_ways(tmp_path, section, option):
        assert found.subsets == subsets
        assert found.policies == POLICIES


def test_map_of_sections_is_changed_by_key_and_field(tmp_path: Path) -> None:
    for found in both_ways(
        tmp_path,
        "filter: {policies: {web: {near_duplicates: false}}}",
        "filter.policies.web.near_duplicates=false",
    ):
        assert found.policies["web"].rules == POLICIES["web"].rules
        assert not found.policies["web"].near_duplicates
        assert found.policies.keys() == POLICIES.keys()


def test_null_stays_in_a_map_whose_values_may_be_null(tmp_path: Path) -> None:
    recipe = from_file(tmp_path, "based_on: world-1m\npack: {field_map: {Licences: null}}\n")
    before = find_recipe("world-1m").pack.field_map
    assert recipe.pack.field_map == {**before, "Licences": None}
    assert from_file(tmp_path, "based_on: world-1m\npack: {field_map: {}}\n").pack.field_map == {}


def test_file_that_is_based_on_nothing_says_the_whole_map(tmp_path: Path) -> None:
    text = "download: {source: {kind: files, patterns: a}}\nfilter: {subsets: {Mine: web}}\n"
    assert from_file(tmp_path, text).filter.subsets == {"Mine": "web"}
    assert from_file(tmp_path, text, "filter.subsets.Other=books").filter.subsets == {
        "Mine": "web",
        "Other": "books",
    }


@pytest.mark.parametrize("section", ["", "filter: {}\n", "filter: {shingles: {words: 3}}\n"])
def test_option_changes_the_default_of_what_a_file_leaves_out(tmp_path: Path, section: str) -> None:
    text = f"download: {{source: {{kind: files, patterns: a}}}}\n{section}"
    recipe = from_file(tmp_path, text, "filter.subsets.Mine=web", "train.model.d_ff=64", "train.max_steps=50")
    assert recipe.filter.subsets == {**SUBSETS, "Mine": "web"}
    assert recipe.train.max_steps == 50
    assert recipe.train.model.model_dump() == {**find_recipe("demo").train.model.model_dump(), "d_ff": 64}


def test_another_engine_leaves_the_options_of_the_first_behind(tmp_path: Path) -> None:
    recipe = from_file(
        tmp_path,
        "based_on: demo\nexecution: {engine: {name: deepspeed, zero_stage: 2}}\n",
        "execution.engine=local",
    )
    assert recipe.execution == find_recipe("demo").execution


def test_null_for_an_entry_that_there_is_not_asks_what_was_meant(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"filter.subsets.Githb: null must .*; did you mean 'Github'\?"):
        from_file(tmp_path, "based_on: demo\nfilter: {subsets: {Githb: null}}\n")


@pytest.mark.parametrize(
    ("option", "meant"),
    [
        ("max_steps=3", "train.max_steps"),
        ("trian.max_steps=3", "train.max_steps"),
        ("train-tokeniser.vocab_size=3", "train_tokenizer.vocab_size"),
        ("train.max_step=3", "max_steps"),
        ("train.MaxSteps=3", "max_steps"),
        ("train.model.prest=world-1m", "preset"),
        ("train.model=wrld-1m", "world-1m"),
        ("train.model.preset=world-1n", "world-1m"),
        ("train.model.family=wrld", "world"),
        ("execution.engine=deepsped", "deepspeed"),
        ("execution.engine.name=locla", "local"),
        ("download.source.kind=fiels", "files"),
        ("download.source.val_frction=0.1", "val_fraction"),
        ("filter.shingles.word=3", "words"),
        ("filter.policies={web: {rules: [{rule: lenght}]}}", "length"),
        ("filter.policies={web: {rule: [{rule: length}]}}", "rules"),
    ],
)  # fmt: skip
def test_misspelt_field_or_member_asks_what_was_meant(option: str, meant: str) -> None:
    with pytest.raises(InputError) as caught:
        find_recipe("demo", dict([parse_override(option)]))
    assert f"did you mean {meant!r}?" in str(caught.value)


@pytest.mark.parametrize("option", ["train.max_steps.x=3", "filter.policies.web.rules.0.min_words=3"])
def test_field_below_what_has_none_is_refused(option: str) -> None:
    with pytest.raises(InputError, match="has no fields below it; set it as a whole"):
        find_recipe("demo", dict([parse_override(option)]))


def test_misspelt_recipe_asks_what_was_meant(tmp_path: Path) -> None:
    for wrong in ("dmo", "Demo", "demo "):
        with pytest.raises(InputError, match=r"did you mean 'demo'\?"):
            find_recipe(wrong)
    with pytest.raises(InputError, match=r"did you mean 'own-files'\?"):
        from_file(tmp_path, "based_on: own_files\n")
