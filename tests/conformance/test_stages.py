"""Every registered stage keeps every promise."""

import contextlib

import pytest
from pydantic import ValidationError

from flows.recipes.registry import RECIPES
from flows.stages import STAGES
from storage.config import Config
from tasks.core.stage import Stage
from tests.conformance.stage_checks import CHECKS, Member


@pytest.fixture(params=STAGES.names())
def member(request: pytest.FixtureRequest) -> Member:
    """A registered member with the sections that recipes have for it."""
    stage = STAGES.get(request.param)
    place = STAGES.entries[request.param].place
    return Member(request.param, stage, place, sections_of(stage), dict(STAGES.members()))


def sections_of(stage: Stage) -> list[Config]:
    found = [getattr(make(), stage.config_field) for make in RECIPES.values()]
    with contextlib.suppress(ValidationError):  # it has no defaults; a check wants to hear why
        found.append(stage.config())
    return [section for section in found if section is not None]


@pytest.mark.parametrize("check", CHECKS)
def test_stage(check: str, member: Member) -> None:
    assert member.configs, "a config without defaults needs a recipe that has a section of it"
    CHECKS[check](member)
