"""Sections of a recipe: what is off is stepped over, and only who reads something else gets another key."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from flows.recipes.reading import find_recipe
from flows.recipes.schema import Recipe
from storage.errors import InputError
from tasks.core.stage import stage_key


def keys(recipe: Recipe) -> dict[str, str]:
    """Return a key for each stage, as if every stage's content were its name."""
    return {
        step.stage.name: stage_key(
            step.stage,
            step.config,
            {role: hashlib.sha256(source.encode()).hexdigest() for role, source in step.inputs.items()},
            {},
        )
        for step in recipe.steps()
    }


def reads(recipe: Recipe, stage: str) -> dict[str, str]:
    [step] = [step for step in recipe.steps() if step.stage.name == stage]
    return dict(step.inputs)


@pytest.mark.parametrize("value", [None, False, "off", "no", "Off"], ids=str)
def test_stage_that_is_off_is_not_run_and_its_readers_read_what_it_passes(value: object) -> None:
    recipe = find_recipe("demo", {"dedup": value})
    assert "dedup" not in keys(recipe)
    for reader in ("train-tokenizer", "tokenize", "evaluate"):
        assert reads(recipe, reader)["corpus"] == "filter"


def test_switching_a_stage_off_changes_the_keys_of_its_readers_alone() -> None:
    on, off = keys(find_recipe("demo")), keys(find_recipe("demo", {"dedup": None}))
    assert {name for name in off if on[name] != off[name]} == {"train-tokenizer", "tokenize", "evaluate"}
    assert on == keys(find_recipe("demo", {}))


def test_last_stages_may_be_off() -> None:
    assert list(keys(find_recipe("demo", {"publish": None})))[-1] == "evaluate"
    assert list(keys(find_recipe("demo", {"publish": None, "evaluate": None})))[-1] == "train"


@pytest.mark.parametrize(
    ("off", "said"),
    [
        ("evaluate", "evaluate must be on, since publish"),
        ("pack", "pack must be on, since train"),
        ("download", "download must be on, since filter"),
        ("filter", "filter must be on, since dedup"),
    ],
)
def test_stage_that_others_need_cannot_be_off(off: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        find_recipe("demo", {off: None}).steps()


def test_filter_and_dedup_may_be_off_together() -> None:
    recipe = find_recipe("demo", {"filter": None, "dedup": None})
    assert reads(recipe, "tokenize")["corpus"] == "download"


@pytest.mark.parametrize(
    "written", ["dedup: null", "dedup: off", "dedup: false", "dedup: NO", "dedup:", "dedup: ~"]
)
def test_recipe_file_switches_a_stage_off(tmp_path: Path, written: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"based_on: demo\n{written}\n")
    assert "dedup" not in keys(find_recipe(str(path)))


def test_recipe_based_on_one_without_a_stage_switches_it_on_again() -> None:
    again: dict[str, Any] = {"dedup": None, "dedup.min_similarity": 0.5}
    assert reads(find_recipe("demo", again), "tokenize")["corpus"] == "dedup"


@pytest.mark.parametrize("value", [True, 3, "on", "yes", "0"])
def test_section_is_a_section_or_off(value: object) -> None:
    with pytest.raises(InputError, match="dedup: "):
        find_recipe("demo", {"dedup": value})


def test_target_that_is_off_is_refused() -> None:
    with pytest.raises(InputError, match=r"^the target dedup must be on"):
        find_recipe("demo", {"dedup": None}).steps("dedup")


def test_recipe_survives_json_with_a_stage_off() -> None:
    recipe = find_recipe("demo", {"dedup": None})
    assert type(recipe).model_validate_json(recipe.model_dump_json()) == recipe
