"""Every registered stage keeps every promise; what it does, on the demo's text cut down to seconds."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from flows.chain import chain
from flows.recipes.reading import find_recipe
from flows.recipes.registry import RECIPES
from flows.stages import STAGES
from storage.artifacts.store import Artifact, Store
from storage.config import Config
from tasks.core.runner import run_stage
from tasks.core.stage import RunContext, Stage
from tests.conformance.stage_build_checks import BUILD_CHECKS, Built, execution
from tests.conformance.stage_checks import CHECKS, Member, with_what_it_reads
from tests.integration.test_reproducible import SMALL

PLUGIN = Path(__file__).parents[1] / "example_plugin"
sys.path.append(str(PLUGIN))  # where it is not installed

from example_plugin.stages import STAGE as EXAMPLE  # noqa: E402

NAMES = tuple(dict.fromkeys((*STAGES.names(), EXAMPLE.name)))

SETTINGS = {**SMALL, "train.checkpoint_every": 1}
"""With a checkpoint at every step, so that a training of three steps can be interrupted."""

SLOW = {"train"}
"""Stages that start a process which loads torch whenever they are built."""


def all_stages() -> dict[str, Stage]:
    return {EXAMPLE.name: EXAMPLE, **dict(STAGES.members())}


@pytest.fixture(params=NAMES)
def member(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Member:
    """A registered member with the sections that recipes have for it."""
    name, place = request.param, "example_plugin.stages:STAGE"
    stage = EXAMPLE
    if name in STAGES.names():
        stage, place = STAGES.get(name), STAGES.entries[name].reference
    monkeypatch.setenv("PYTHONPATH", str(PLUGIN), prepend=os.pathsep)
    return Member(name, stage, place, sections_of(stage), all_stages())


def sections_of(stage: Stage) -> list[Config]:
    made = [make() for make in RECIPES.values()]
    found = [getattr(recipe, stage.config_field, None) for recipe in made]  # None: off, or of no registered stage
    with contextlib.suppress(ValidationError):  # it has no defaults; a check wants to hear why
        found.append(stage.config())
    return [section for section in found if section is not None]


@pytest.mark.parametrize("check", CHECKS)
def test_stage(check: str, member: Member) -> None:
    assert member.configs, "a config without defaults needs a recipe that has a section of it"
    CHECKS[check](member)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Built]]:
    """A function that builds a stage and all that it reads, once for all checks."""
    folder = tmp_path_factory.mktemp("stages")
    context = RunContext(Store(str(folder / "store")), "reference", {}, execution(workers=1))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield cache(lambda name: build(name, context, folder))
    torch.set_num_threads(threads)


def build(name: str, context: RunContext, folder: Path) -> Built:
    stages = all_stages()
    needed = with_what_it_reads(stages[name], stages)
    demo = find_recipe("demo", SETTINGS)
    configs = {stage.name: getattr(demo, stage.config_field, None) or sections_of(stage)[0] for stage in needed}
    inputs: dict[str, Artifact] = {}
    artifacts: dict[str, Artifact] = {}
    for step in chain(needed, configs, name):
        inputs = {role: artifacts[source] for role, source in step.inputs.items()}
        artifacts[step.stage.name] = run_stage(step.stage, step.config, inputs, context).artifact
    return Built(stages[name], configs[name], inputs, artifacts[name], folder)


@pytest.mark.parametrize("check", BUILD_CHECKS)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in NAMES]
)
def test_build(name: str, check: str, built: Callable[[str], Built]) -> None:
    BUILD_CHECKS[check](built(name))
