"""The suite for stages notices each broken promise: a stage that breaks one fails the checks of that promise."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

import pytest
from pydantic import ConfigDict, Field, field_serializer, model_validator

from storage.artifacts.records import Part
from storage.artifacts.store import Artifact, Store
from storage.config import Config
from tasks.core.context import StageContext
from tasks.core.runner import run_stage
from tasks.core.stage import RunContext, Stage
from tests.conformance.stage_build_checks import BUILD_CHECKS, Built, execution
from tests.conformance.stage_checks import CHECKS, Member


class SoundConfig(Config):
    """How lines are counted."""

    least: int = Field(default=1, ge=1)
    """Shorter lines are left out."""
    folder: str = ""
    """Where they are kept meanwhile."""

    excluded_from_key = frozenset({"folder"})


def count(config: SoundConfig, corpus: Artifact, *, context: StageContext) -> list[Part]:
    return []


SOUND = Stage(name="sound", version=1, config=SoundConfig, build=count, inputs={"corpus": "lines"})
LINES = Stage(name="lines", version=1, config=SoundConfig, build=count)


class DemandsSilently(SoundConfig):
    """How lines are counted."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.folder:
            raise ValueError("something is missing")
        return self


class LeavesAFieldUnexplained(SoundConfig):
    """How lines are counted."""

    unit: str = "characters"


class Thaws(SoundConfig):
    """How lines are counted."""

    model_config = ConfigDict(frozen=False)


class TakesAnything(SoundConfig):
    """How lines are counted."""

    model_config = ConfigDict(extra="ignore")


class WritesAnotherValue(SoundConfig):
    """How lines are counted."""

    @field_serializer("least")
    def _write(self, least: int) -> int:
        return least + 1


class HasASet(SoundConfig):
    """How lines are counted."""

    units: frozenset[str] = frozenset({"words"})
    """What is counted."""


class ForgetsAField(SoundConfig):
    """How lines are counted."""

    def identity(self) -> dict[str, Any]:
        return {name: value for name, value in super().identity().items() if name != "least"}


class KeepsThePlace(SoundConfig):
    """How lines are counted."""

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "folder": self.folder}


class ExcludesWhatIsNotThere(SoundConfig):
    """How lines are counted."""

    excluded_from_key = frozenset({"folder", "directory"})


def count_without_context(config: SoundConfig, corpus: Artifact) -> list[Part]:
    return []


def count_other_input(config: SoundConfig, documents: Artifact, *, context: StageContext) -> list[Part]:
    return []


def refuse(config: SoundConfig) -> None:
    raise ValueError("least must be known to another stage")


@dataclass(frozen=True)
class Broken:
    """The changes that make the sound stage break a promise, and the checks that it then fails."""

    fails: set[str]
    stage: Mapping[str, Any]
    registered_as: str = ""
    others: tuple[Stage, ...] = (LINES,)


UNKNOWN_INPUT = {"inputs_are_registered_stages", "chain_runs_it_after_what_it_reads"}

BROKEN = {
    "other name": Broken({"name_is_well_formed_and_the_registered_one"}, {}, registered_as="count"),
    "name with underscore": Broken({"name_is_well_formed_and_the_registered_one"}, {"name": "so_und"}),
    "name of a field": Broken({"name_is_well_formed_and_the_registered_one"}, {"name": "execution"}),
    "version": Broken({"version_is_a_positive_number"}, {"version": 0}),
    "demand": Broken({"config_has_defaults_or_says_what_is_missing"}, {"config": DemandsSilently}),
    "unexplained": Broken({"config_explains_itself"}, {"config": LeavesAFieldUnexplained}),
    "thaws": Broken({"config_is_frozen_and_closed"}, {"config": Thaws}),
    "open": Broken({"config_is_frozen_and_closed"}, {"config": TakesAnything}),
    "JSON": Broken({"config_survives_json"}, {"config": WritesAnotherValue}),
    "identity": Broken(
        {"identity_is_canonical_json", "key_depends_on_all_fields_but_the_excluded"}, {"config": HasASet}
    ),
    "forgets": Broken({"key_depends_on_all_fields_but_the_excluded"}, {"config": ForgetsAField}),
    "place": Broken({"key_depends_on_all_fields_but_the_excluded"}, {"config": KeepsThePlace}),
    "excludes": Broken({"key_depends_on_all_fields_but_the_excluded"}, {"config": ExcludesWhatIsNotThere}),
    "unknown input": Broken(UNKNOWN_INPUT, {"inputs": {"corpus": "letters"}}),
    "follows what it does not read": Broken(UNKNOWN_INPUT, {"follows": "letters"}),
    "passes what it does not read": Broken({"inputs_are_registered_stages"}, {"passes": "documents"}),
    "circle": Broken(
        {"stages_do_not_go_in_circles", "chain_runs_it_after_what_it_reads"},
        {},
        others=(replace(LINES, inputs={"counted": "sound"}),),
    ),
    "follows and reads a reader": Broken(
        {"chain_runs_it_after_what_it_reads"},
        {"follows": "letters", "inputs": {"corpus": "lines", "letters": "letters"}, "build": lambda *_, **__: []},
        others=(replace(LINES, inputs={"letters": "letters"}), replace(LINES, name="letters")),
    ),
    "no context": Broken({"build_takes_config_inputs_and_context"}, {"build": count_without_context}),
    "other input": Broken({"build_takes_config_inputs_and_context"}, {"build": count_other_input}),
    "refuses": Broken({"section_is_accepted_by_its_own_check"}, {"check": refuse}),
}
"""How a stage is broken -> what it fails."""


def member(broken: Broken, place: str = "tests.conformance.test_stage_broken:SOUND") -> Member:
    stage = replace(SOUND, **broken.stage)
    stages = {each.name: each for each in (stage, *broken.others)}
    return Member(broken.registered_as or stage.name, stage, place, [stage.config(folder="here")], stages)


MemberT = TypeVar("MemberT", Member, Built)


def failed(member: MemberT, checks: Mapping[str, Callable[[MemberT], None]]) -> set[str]:
    found = set()
    for name, check in checks.items():
        try:
            check(member)
        except (Exception, pytest.fail.Exception):  # noqa: BLE001 - a check may fail in any way
            found.add(name)
    return found


IN_PROCESS = {name: check for name, check in CHECKS.items() if name != "planning_loads_nothing_heavy"}


def test_sound_stage_passes_every_check() -> None:
    assert failed(member(Broken(set(), {})), CHECKS) == set()


@pytest.mark.parametrize("way", BROKEN)
def test_broken_stage_fails_the_checks_of_its_promise_alone(way: str) -> None:
    assert failed(member(BROKEN[way]), IN_PROCESS) == BROKEN[way].fails


def test_stage_that_loads_something_heavy_fails_that_check_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "heavy_stage.py").write_text(
        "import scipy\nfrom tests.conformance.test_stage_broken import SOUND\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    assert failed(member(Broken(set(), {}), "heavy_stage:SOUND"), CHECKS) == {"planning_loads_nothing_heavy"}


def test_every_check_is_failed_by_some_stage() -> None:
    assert set[str]().union(*(broken.fails for broken in BROKEN.values())) == {*IN_PROCESS}


@pytest.fixture
def lines(tmp_path: Path) -> Artifact:
    """What the stages below read."""

    def write(config: SoundConfig, *, context: StageContext) -> list[Part]:
        local = context.writer.scratch() / "lines.txt"
        local.write_text("a line\n")
        return [context.writer.commit("lines", {"lines": local})]

    context = RunContext(Store(str(tmp_path / "store")), "reference", {}, execution(workers=1))
    return run_stage(replace(LINES, build=write), SoundConfig(), {}, context).artifact


def number_lines(
    config: SoundConfig,
    corpus: Artifact,
    *,
    context: StageContext,
    add: Callable[[StageContext], object] = lambda context: "",
    resumes: bool = True,
) -> list[Part]:
    """Write the lines twice; what `add` returns is written behind them."""
    parts = context.finished_parts(NUMBERED) if resumes else {}
    behind = add(context)
    for name in NUMBERED:
        if name not in parts:
            local = context.writer.scratch() / f"{name}.txt"
            local.write_text(f"{name} {corpus.open(corpus.file('lines')).read_text()} {behind}")
            parts[name] = context.writer.commit(name, {"lines": local})
    return [parts[name] for name in NUMBERED]


NUMBERED = ("first", "second")

ANOTHER_PLACE, MORE_WORKERS = "content_is_the_same_in_another_place", "content_is_the_same_with_more_workers"
INTERRUPTED = "interrupted_work_goes_on_to_the_same_content"

BROKEN_BUILDS: dict[str, Broken] = {
    "chance": Broken({ANOTHER_PLACE, MORE_WORKERS, INTERRUPTED}, {"add": lambda _: random.random()}),
    "store": Broken({ANOTHER_PLACE, MORE_WORKERS, INTERRUPTED}, {"add": lambda context: context.writer.store.url}),
    "folder": Broken({ANOTHER_PLACE}, {"add": lambda _: Path.cwd()}),
    "workers": Broken({MORE_WORKERS}, {"add": lambda context: context.workers}),
    "earlier attempt": Broken({INTERRUPTED}, {"add": lambda context: sorted(context.writer.parts())}),
    "begins again": Broken({"committed_parts_are_not_done_again"}, {"resumes": False}),
    "no such part": Broken({"result_is_a_part_that_it_writes"}, {"result": "third"}),
}
"""How a stage's work is broken -> what it fails."""


def failed_builds(lines: Artifact, folder: Path, *, result: str = "first", **broken: Any) -> set[str]:
    stage = replace(SOUND, build=partial(number_lines, **broken), result=result)
    context, config = RunContext(lines.store, "reference", {}, execution(workers=1)), SoundConfig()
    artifact = run_stage(stage, config, {"corpus": lines}, context).artifact
    return failed(Built(stage, config, {"corpus": lines}, artifact, folder), BUILD_CHECKS)


def test_sound_build_passes_every_check(lines: Artifact, tmp_path: Path) -> None:
    assert failed_builds(lines, tmp_path) == set()


@pytest.mark.parametrize("way", BROKEN_BUILDS)
def test_broken_build_fails_the_checks_of_its_promise_alone(way: str, lines: Artifact, tmp_path: Path) -> None:
    assert failed_builds(lines, tmp_path, **BROKEN_BUILDS[way].stage) == BROKEN_BUILDS[way].fails


def test_every_check_of_builds_is_failed_by_some_stage_alone() -> None:
    alone = [broken.fails for broken in BROKEN_BUILDS.values() if len(broken.fails) == 1]
    assert set[str]().union(*alone) == {*BUILD_CHECKS}
