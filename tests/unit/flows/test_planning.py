"""Plans over two toy stages: what would run, which field changed, and that nothing is written."""

import dataclasses
import json
from pathlib import Path

import pytest

from flows import planning
from flows.chain import Step, chain
from storage.artifacts.records import Part
from storage.artifacts.store import Artifact, Store
from storage.config import Config
from tasks.core.context import StageContext
from tasks.core.execution import Execution
from tasks.core.runner import run_stage
from tasks.core.stage import RunContext, Stage


class WordsConfig(Config):
    word: str = "a"
    count: int = 2
    nested: dict[str, int] = {}


class SizeConfig(Config):
    unit: str = "bytes"


def write_words(config: WordsConfig, *, context: StageContext) -> list[Part]:
    local = context.writer.scratch() / "words.txt"
    local.write_text(config.word * config.count)
    return [context.writer.commit("words", {"words": local})]


def measure(config: SizeConfig, words: Artifact, *, context: StageContext) -> list[Part]:
    local = context.writer.scratch() / "size.json"
    local.write_text(json.dumps([config.unit, words.open(words.file("words")).stat().st_size]))
    return [context.writer.commit("size", {"size": local})]


WORDS = Stage("words", 1, WordsConfig, write_words, sources=lambda config: {"file": "f1"})
SIZE = Stage("size", 1, SizeConfig, measure, inputs={"words": "words"})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def steps(
    words: WordsConfig = WordsConfig(), size: SizeConfig = SizeConfig(), words_stage: Stage = WORDS
) -> tuple[Step, ...]:
    return chain([words_stage, SIZE], {"words": words, "size": size})


def build_all(store: Store, words: WordsConfig = WordsConfig(), size: SizeConfig = SizeConfig()) -> None:
    context = RunContext(store=store, run_id="r", recipe={}, execution=Execution())
    artifact = run_stage(WORDS, words, {}, context).artifact
    run_stage(SIZE, size, {"words": artifact}, context)


def states(plans: list[planning.StagePlan]) -> list[str]:
    return [plan.state for plan in plans]


def changes(plan: planning.StagePlan) -> list[tuple[str, object, object]]:
    return [(change.field, change.old, change.new) for change in plan.changes]


def test_plan_of_an_empty_store_runs_the_first_and_waits_for_it(store: Store) -> None:
    plans = planning.make_plan(steps(), store)
    assert states(plans) == ["run", "waiting"]
    assert plans[0].reason == "was never built in this store"
    assert plans[1].key is None


def test_plan_of_finished_stages_is_cached_with_the_keys_of_the_artifacts(store: Store) -> None:
    build_all(store)
    plans = planning.make_plan(steps(), store)
    assert states(plans) == ["cached", "cached"]
    assert {(plan.stage.name, plan.key) for plan in plans} == {(m.stage, m.key) for m in store.manifests()}


def test_plan_names_changed_fields_against_the_nearest_artifact(store: Store) -> None:
    build_all(store, WordsConfig(word="b", count=9, nested={"x": 1}))
    build_all(store, WordsConfig(word="b", count=3, nested={"x": 1}))
    plans = planning.make_plan(steps(WordsConfig(word="b", count=4, nested={"x": 1})), store)
    assert changes(plans[0]) == [("words.count", 3, 4)]
    plans = planning.make_plan(steps(WordsConfig(word="b", count=3, nested={"x": 2})), store)
    assert changes(plans[0]) == [("words.nested.x", 1, 2)]


def test_plan_of_a_waiting_stage_shows_its_own_changes_only(store: Store) -> None:
    build_all(store)
    plans = planning.make_plan(steps(WordsConfig(word="c"), SizeConfig(unit="bits")), store)
    assert states(plans) == ["run", "waiting"]
    assert changes(plans[1]) == [("size.unit", "bytes", "bits")]


def test_plan_with_force_runs_the_stage_and_keeps_its_followers_waiting(store: Store) -> None:
    build_all(store)
    plans = planning.make_plan(steps(), store, force=["words"])
    assert states(plans) == ["run", "waiting"]
    assert plans[0].reason == "forced"


def test_plan_names_a_new_version_and_a_changed_source(store: Store) -> None:
    build_all(store)
    newer = Stage("words", 2, WordsConfig, write_words, sources=lambda config: {"file": "f2"})
    plans = planning.make_plan(steps(words_stage=newer), store)
    assert changes(plans[0]) == [("sources.file", "f1", "f2"), ("version", 1, 2)]


def test_plan_shows_an_input_of_other_content(store: Store) -> None:
    build_all(store, WordsConfig(word="x"))
    context = RunContext(store=store, run_id="r", recipe={}, execution=Execution())
    run_stage(WORDS, WordsConfig(word="y"), {}, context)
    plans = planning.make_plan(steps(WordsConfig(word="y")), store)
    assert states(plans) == ["cached", "run"]
    assert [field for field, _, _ in changes(plans[1])] == ["inputs.words"]


def test_plan_writes_nothing(store: Store, tmp_path: Path) -> None:
    planning.make_plan(steps(), store)
    assert not (tmp_path / "store").exists()


def test_stage_that_quotes_its_inputs_is_built_again_for_equal_content_by_another_key(store: Store) -> None:
    quoting = dataclasses.replace(SIZE, quotes_inputs=True)
    context = RunContext(store=store, run_id="r", recipe={}, execution=Execution())
    plans = []
    for config in (WordsConfig(word="aa", count=1), WordsConfig(word="a", count=2)):
        words = run_stage(WORDS, config, {}, context).artifact
        both = chain([WORDS, quoting], {"words": config, "size": SizeConfig()})
        plans.append(planning.make_plan(both, store)[1])
        run_stage(quoting, SizeConfig(), {"words": words}, context)
        assert planning.make_plan(both, store)[1].state == "cached"
    assert [[change.field for change in plan.changes] for plan in plans] == [[], ["inputs.words.key"]]
