"""What plans say of attempts that did not come to their end, and of what a later stage cannot use."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from flows import planning
from flows.chain import chain
from storage.artifacts.records import Part
from storage.artifacts.store import Artifact, Store
from storage.artifacts.upkeep.gc import plan_garbage
from storage.artifacts.upkeep.verify import verify_store
from storage.config import Config
from storage.errors import InputError
from tasks.core.context import StageContext
from tasks.core.execution import Execution
from tasks.core.runner import run_stage
from tasks.core.stage import RunContext, Stage


class WordsConfig(Config):
    word: str = "a"
    parts: int = 3


class LastConfig(Config):
    pass


def write_words(config: WordsConfig, *, context: StageContext) -> list[Part]:
    done = []
    for number in range(config.parts):
        local = context.writer.scratch() / "words.txt"
        local.write_text(config.word * number)
        done.append(context.writer.commit(f"part-{number}", {"words": local}))
        if config.word == "killed" and number == 1:
            raise KeyboardInterrupt
    return done


def refuse(config: Config, inputs: Mapping[str, Artifact]) -> None:
    if inputs["words"].manifest.config["word"] == "empty":
        raise InputError("the words must not be empty")


def build_last(config: LastConfig, words: Artifact, middle: Artifact, *, context: StageContext) -> list[Part]:
    raise AssertionError("must not be built")


WORDS = Stage("words", 1, WordsConfig, write_words)
MIDDLE = Stage("middle", 1, LastConfig, write_words, inputs={"words": "words"})
LAST = Stage("last", 1, LastConfig, build_last, inputs={"words": "words", "middle": "middle"}, foresee=refuse)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def plan(store: Store, recipe: str = "", **words: Any) -> planning.StagePlan:
    return planning.make_plan(chain([WORDS], {"words": WordsConfig(**words)}), store, recipe=recipe)[0]


def build(store: Store, recipe: str = "mine", **words: Any) -> Artifact:
    context = RunContext(store=store, run_id="r", recipe={"name": recipe}, execution=Execution())
    return run_stage(WORDS, WordsConfig(**words), {}, context).artifact


def test_plan_of_the_same_settings_says_that_the_attempt_is_continued(store: Store) -> None:
    with pytest.raises(KeyboardInterrupt):
        build(store, word="killed")
    found = plan(store, word="killed")
    assert found.state == "run"
    assert found.attempt is not None
    assert found.attempt.key == found.key
    assert str(found.attempt).startswith(f"continues words/{found.key}, 2 parts done, ")
    assert found.to_json()["attempt"]["continued"] is True
    assert found.to_json()["attempt"]["parts"] == ["part-0", "part-1"]


def test_plan_of_other_settings_names_the_attempt_and_how_to_go_back_to_it(store: Store) -> None:
    with pytest.raises(KeyboardInterrupt):
        build(store, word="killed")
    found = plan(store, word="killed", parts=9)
    assert found.reason == "was never built with these settings"
    assert found.attempt is not None
    assert "differs in words.parts: 3 -> 9; to continue it: --set words.parts=3" in str(found.attempt)
    assert found.to_json()["attempt"]["changes"] == [{"field": "words.parts", "old": 3, "new": 9}]
    assert planning.attempt_lines([found])[0].startswith("words: an unfinished attempt is left, words/")


def test_attempt_of_another_version_is_named_without_a_way_back(store: Store) -> None:
    with pytest.raises(KeyboardInterrupt):
        build(store, word="killed")
    newer = dataclasses.replace(WORDS, version=2)
    found = planning.make_plan(chain([newer], {"words": WordsConfig(word="killed")}), store)[0]
    assert found.attempt is not None
    assert "--set" not in str(found.attempt)
    assert "version: 1 -> 2" in str(found.attempt)


def test_finished_artifact_is_no_attempt(store: Store) -> None:
    build(store, word="a")
    assert plan(store, word="a").attempt is None
    assert plan(store, word="b").attempt is None
    assert not [path for path in store.paths("artifacts") if path.endswith("attempt.json")]


def test_damaged_record_of_an_attempt_is_left_out_of_the_plan_and_found_by_verify(store: Store) -> None:
    with pytest.raises(KeyboardInterrupt):
        build(store, word="killed")
    (path,) = [path for path in store.paths("artifacts") if path.endswith("attempt.json")]
    assert not [problem for problem in verify_store(store) if problem.path == path]
    assert path not in {item.path for item in plan_garbage(store, min_age_seconds=0)}
    store.backend.write(path, store.backend.read(path).replace(b"killed", b"willed"))
    assert plan(store, word="killed").attempt is None
    assert path in {problem.path for problem in verify_store(store) if problem.damage}


def test_plan_of_a_recipe_that_was_never_run_compares_with_no_stranger(store: Store) -> None:
    build(store, recipe="mine", word="a")
    with pytest.raises(KeyboardInterrupt):
        build(store, recipe="mine", word="killed")
    mine, other = plan(store, recipe="mine", word="b"), plan(store, recipe="other", word="b")
    assert [change.field for change in mine.changes] == ["words.word"]
    assert other.changes == []
    assert other.attempt is None
    assert other.reason == "was never built: recipe other was never run in this store"
    assert plan(store, recipe="other", word="a").state == "cached"


def test_what_a_later_stage_cannot_use_is_said_before_what_stands_between(store: Store) -> None:
    configs = {"words": WordsConfig(word="empty"), "middle": LastConfig(), "last": LastConfig()}
    steps = chain([WORDS, MIDDLE, LAST], configs)
    assert [found.problem for found in planning.make_plan(steps, store)] == ["", "", ""]
    words = build(store, word="empty")
    assert [found.problem for found in planning.make_plan(steps, store)] == ["", "", "the words must not be empty"]
    with pytest.raises(InputError, match=r"last cannot succeed, .*the words must not be empty"):
        planning.check_foreseen(steps, {"words": words})
    planning.check_foreseen(steps, {"words": build(store, word="a")})
