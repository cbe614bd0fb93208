"""What every stage promises (tasks/core/stage.py), one check per promise, on any member.

What a stage computes is checked by its own tests; here it is what planning, recipes and the store rely on.
"""

import inspect
import keyword
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from flows.chain import chain
from storage.canonical import canonical_json
from storage.config import Config
from storage.registry import LazyFunction, load
from tasks.core.stage import Stage, stage_key

REPOSITORY = Path(__file__).parents[2]

HEAVY = ("torch", "datatrove", "pyarrow", "transformers", "scipy", "prefect")
"""Libraries that take a second to import: planning needs none of them."""

RESERVED = ("name", "description", "execution")
"""Fields of a recipe that are no sections."""


@dataclass(frozen=True)
class Member:
    """A stage as it is registered."""

    registered_as: str
    stage: Stage
    place: str
    """`module:attribute`, from which another process gets the same stage."""
    configs: Sequence[Config]
    """Sections that users have: the defaults, if there are, and those of recipes."""
    stages: Mapping[str, Stage]
    """All stages that are registered, this one included."""


def name_is_well_formed_and_the_registered_one(member: Member) -> None:
    name, section = member.stage.name, member.stage.config_field
    assert name == member.registered_as
    assert re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name), "lower-case words with hyphens"
    assert section.isidentifier()
    assert not keyword.iskeyword(section)
    assert section not in RESERVED
    same = [other.name for other in member.stages.values() if other.config_field == section]
    assert same == [name], "a section belongs to one stage"


def version_is_a_positive_number(member: Member) -> None:
    assert type(member.stage.version) is int
    assert member.stage.version >= 1


def config_has_defaults_or_says_what_is_missing(member: Member) -> None:
    kind = member.stage.config
    required = {name for name, field in kind.model_fields.items() if field.is_required()}
    try:
        kind()
    except ValidationError as error:
        missing = {str(problem["loc"][0]) for problem in error.errors() if problem["type"] == "missing"}
        said = " ".join(problem["msg"] for problem in error.errors())
        assert missing == required
        assert missing or any(name in said for name in kind.model_fields), "the message names a field"
    else:
        assert not required


def config_explains_itself(member: Member) -> None:
    assert member.stage.config.__doc__ not in (None, "", Config.__doc__)
    for name, field in member.stage.config.model_fields.items():
        assert field.description, f"{name} has no docstring, and so no line in `pile recipes`"


def config_is_frozen_and_closed(member: Member) -> None:
    assert issubclass(member.stage.config, Config)
    for config in member.configs:
        for name in type(config).model_fields:
            with pytest.raises(ValidationError):
                setattr(config, name, getattr(config, name))
        with pytest.raises(ValidationError):
            type(config).model_validate({**dict(config), "no_such_field": 1})


def config_survives_json(member: Member) -> None:
    for config in member.configs:
        assert type(config).model_validate_json(config.model_dump_json()) == config


def identity_is_canonical_json(member: Member) -> None:
    for config in member.configs:
        again = type(config).model_validate(dict(config))
        assert canonical_json(config.identity()) == canonical_json(again.identity())


def key_depends_on_all_fields_but_the_excluded(member: Member) -> None:
    assert member.stage.config.excluded_from_key <= member.stage.config.model_fields.keys()
    for config in member.configs:
        before = _key(member.stage, config)
        for path, is_excluded in _fields(config):
            after = _key(member.stage, _with_another_value(config, path))
            assert (after == before) == is_excluded, f"{'.'.join(path)} and the key"


def inputs_are_registered_stages(member: Member) -> None:
    stage = member.stage
    for role, source in stage.inputs.items():
        assert role.isidentifier()
        assert role not in ("config", "context")
        assert source in member.stages, f"{role} reads {source!r}"
    assert stage.passes in ("", *stage.inputs), "what its readers get when it is off is an input"
    assert stage.follows in ("", *stage.inputs.values()), "it reads the stage that it follows"


def stages_do_not_go_in_circles(member: Member) -> None:
    below: list[str] = []
    left = [member.stage.name]
    while left:
        stage = member.stages.get(left.pop())
        for source in stage.inputs.values() if stage else ():
            assert source != member.stage.name
            if source not in below:
                below.append(source)
                left.append(source)


def chain_runs_it_after_what_it_reads(member: Member) -> None:
    stages = with_what_it_reads(member.stage, member.stages)
    configs = {stage.name: _any_config(stage) for stage in stages}
    steps = chain(stages, configs, member.stage.name)
    assert [step.stage.name for step in steps][-1:] == [member.stage.name]
    for index, step in enumerate(steps):
        assert set(step.inputs.values()) <= {earlier.stage.name for earlier in steps[:index]}


def build_takes_config_inputs_and_context(member: Member) -> None:
    build = member.stage.build
    function = load(build.reference) if isinstance(build, LazyFunction) else build
    roles = {role: object() for role in member.stage.inputs}
    inspect.signature(function).bind(object(), **roles, context=object())


def section_is_accepted_by_its_own_check(member: Member) -> None:
    if member.stage.check is not None:
        for config in member.configs:
            member.stage.check(config)


def planning_loads_nothing_heavy(member: Member) -> None:
    """A process that only gets the stage, as every `pile plan` does."""
    code = (
        "import sys; from storage.registry import load; load(sys.argv[1]).config; "
        "print(*[name for name in sys.argv[2:] if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, member.place, *HEAVY],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


CHECKS: dict[str, Callable[[Member], None]] = {
    check.__name__: check
    for check in (
        name_is_well_formed_and_the_registered_one,
        version_is_a_positive_number,
        config_has_defaults_or_says_what_is_missing,
        config_explains_itself,
        config_is_frozen_and_closed,
        config_survives_json,
        identity_is_canonical_json,
        key_depends_on_all_fields_but_the_excluded,
        inputs_are_registered_stages,
        stages_do_not_go_in_circles,
        chain_runs_it_after_what_it_reads,
        build_takes_config_inputs_and_context,
        section_is_accepted_by_its_own_check,
        planning_loads_nothing_heavy,
    )
}


def _key(stage: Stage, config: Config) -> str:
    return stage_key(stage, config, dict.fromkeys(stage.inputs, "a" * 64), {})


def _fields(config: Config) -> Iterator[tuple[tuple[str, ...], bool]]:
    """Yield the path of every field, of a config inside those of its fields; and whether the key leaves it out."""
    for name in type(config).model_fields:
        is_excluded = name in config.outside_key()
        inner = getattr(config, name)
        if isinstance(inner, Config) and type(inner).model_fields:
            for path, inner_is_excluded in _fields(inner):
                yield (name, *path), is_excluded or inner_is_excluded
        else:
            yield (name,), is_excluded


def _with_another_value(config: Any, path: tuple[str, ...]) -> Any:
    """Return a copy with another value there; it is not validated, only told apart."""
    name, *rest = path
    value = getattr(config, name)
    if rest:
        value = _with_another_value(value, tuple(rest))
    else:  # fields may be compared with each other to know what is part of the key: a number stays one
        value = value + 1 if type(value) in (int, float) else "another value"
    return BaseModel.model_copy(config, update={name: value})


def with_what_it_reads(stage: Stage, stages: Mapping[str, Stage]) -> list[Stage]:
    """Return the stage and all below it: others may be on or off without it noticing."""
    needed = {stage.name}
    left = [stage.name]
    while left:
        reader = stages.get(left.pop())
        fresh = set(reader.inputs.values()) - needed if reader else set()
        needed |= fresh
        left += fresh
    return [each for name, each in stages.items() if name in needed]


def _any_config(stage: Stage) -> Config:
    """Return a config that says no more than that the stage is on."""
    return stage.config.model_construct()
