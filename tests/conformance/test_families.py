"""Every registered model family, and the example plug-in's, keeps every promise in each of its tiny configs."""

import sys
from pathlib import Path

import pytest
import torch

from model.families.base import Family
from model.families.presets import all_presets
from model.families.registry import FAMILIES
from tests.conformance.family_checks import CHECKS

sys.path.append(str(Path(__file__).parents[1] / "example_plugin"))  # where it is not installed

from example_plugin.opt.family import FAMILY as EXAMPLE

MEMBERS: dict[str, Family] = {**dict(FAMILIES.members()), EXAMPLE.name: EXAMPLE}
CASES = {f"{name}/{tiny}": (family, family.tiny[tiny]) for name, family in MEMBERS.items() for tiny in family.tiny}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("check", CHECKS)
def test_family_keeps_its_promise(check: str, case: str) -> None:
    CHECKS[check](*CASES[case])


@pytest.mark.parametrize("name", MEMBERS)
def test_member_is_what_its_name_says(name: str) -> None:
    family = MEMBERS[name]
    assert family.name == name
    assert family.tiny, "a family must bring tiny configs, or nothing of it is checked"
    for config in (*family.presets.values(), *family.tiny.values()):
        assert type(config) is family.config
        assert isinstance(config, family.shape)
        assert config.family == name


def test_architectures_have_types_of_their_own() -> None:
    types = [one.model_type for family in MEMBERS.values() for one in family.architectures()]
    assert len(types) == len(set(types))


def test_presets_belong_to_one_family() -> None:
    assert len(all_presets()) == sum(len(family.presets) for _, family in FAMILIES.members())
