"""Every registered training engine keeps every promise, in one process and in two, on the CPU."""

from typing import Any

import pytest

from model.training.engines.base import EngineConfig
from model.training.engines.registry import DEFAULT, ENGINES
from storage.errors import InputError
from tests.conformance.engine_checks import CHECKS, Member
from tests.conformance.engine_work import Outcome, Work, do, in_processes


def engines() -> list[Any]:
    """Return engine and number of processes, for each that the engine can run."""
    found = []
    for name, member in ENGINES.members():
        for engine in member.examples():
            for processes in (1, 2) if engine == member() else (2,):
                if can_run(engine, processes):
                    values = [name, engine.label(), f"{processes} processes"]
                    found.append(
                        pytest.param((engine, processes), id="-".join(values), marks=marks_of(name, processes))
                    )
    return found


def marks_of(name: str, processes: int) -> list[pytest.MarkDecorator]:
    """Every check starts processes anew, which takes minutes where two of them share two cores with the tests."""
    if name == DEFAULT:
        return []
    return [pytest.mark.slow if processes == 1 else pytest.mark.long]


def can_run(engine: EngineConfig, processes: int) -> bool:
    try:
        engine.check(processes, "cpu")
    except InputError:
        return False
    return True


@pytest.fixture(scope="module")
def member(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Member:
    engine, processes = request.param

    def run(work: Work) -> Outcome:
        folder = tmp_path_factory.mktemp("engine")
        if engine.name == DEFAULT:  # it runs everywhere: here, too, and quickly
            return do(work, folder)
        return in_processes(work, processes, folder / "work")

    return Member(engine, run, processes)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("member", engines(), indirect=True)
def test_engine(check: str, member: Member) -> None:
    CHECKS[check](member)


def test_every_engine_is_registered_under_its_own_name() -> None:
    assert {name: member().name for name, member in ENGINES.members()} == {name: name for name in ENGINES.names()}
