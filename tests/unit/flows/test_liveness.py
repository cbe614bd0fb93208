"""Which flow runs count as dead: on this machine by their process, on others never."""

import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.objects import FlowRun, State, StateType

from flows import liveness
from flows.liveness import HOST, MACHINE, PROCESS, START
from storage.artifacts.processes import host_identity, start_of_process

pytestmark = [pytest.mark.skipif(sys.platform != "linux", reason="process starts are known on Linux only")]


def run(**labels: Any) -> FlowRun:
    known = {HOST: host_identity(), MACHINE: "m1", PROCESS: os.getpid(), START: start_of_process(os.getpid())}
    names = {"host": HOST, "machine": MACHINE, "process": PROCESS, "start": START}
    return FlowRun.model_construct(labels=known | {names[name]: value for name, value in labels.items()})


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness, "_machine", lambda: "m1")


def ended_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_run_of_a_living_process_is_left_alone() -> None:
    assert liveness._death(run()) == ""


def test_run_whose_process_ended_is_dead() -> None:
    process = ended_process()
    assert liveness._death(run(process=process)) == f"its process {process} is gone"


def test_run_whose_process_number_now_belongs_to_another_is_dead() -> None:
    assert "is gone" in liveness._death(run(start="1"))


def test_run_of_this_machine_before_it_was_started_again_is_dead() -> None:
    name, _, rest = host_identity().partition(" ")
    before = f"{name} another-boot {rest.partition(' ')[2]}"
    assert liveness._death(run(host=before)) == "its machine was started again"


@pytest.mark.parametrize(
    "labels",
    [
        {"host": "elsewhere another-boot pid:[1]", "process": 1},
        {"host": f"{host_identity().partition(' ')[0]} another-boot pid:[1]", "machine": "m2"},
        {"host": f"{host_identity().rpartition(' ')[0]} pid:[1]", "process": 1},  # a container on this machine
        {"host": ""},
        {"start": ""},
    ],
    ids=["other host", "other machine of the same name", "other namespace", "unlabelled", "start unknown"],
)
def test_run_of_which_this_machine_cannot_know_is_left_alone(labels) -> None:
    assert liveness._death(run(**labels)) == ""


def in_state(seconds_ago: float, kind: StateType = StateType.CANCELLING, **labels: Any) -> FlowRun:
    since = datetime.now(UTC) - timedelta(seconds=seconds_ago)
    return run(**labels).model_copy(update={"state": State.model_construct(type=kind, timestamp=since)})


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, True),
        ({"seconds_ago": 5}, False),
        ({"kind": StateType.RUNNING}, False),
        ({"host": "elsewhere another-boot pid:[1]"}, False),
        ({"start": "1"}, False),
        ({"start": ""}, False),
    ],
    ids=[
        "overdue",
        "its worker is about it",
        "runs",
        "other host",
        "other process of its number",
        "start unknown",
    ],
)
def test_cancelled_run_is_stopped_that_works_on_unknown_to_any_worker(
    asked: dict[str, Any], expected: bool
) -> None:
    assert liveness._works_on(in_state(**{"seconds_ago": 61, **asked})) is expected


def test_cancelled_run_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    signals: list[tuple[int, int]] = []
    overdue = in_state(61).model_copy(update={"id": uuid4(), "name": "demo"})
    monkeypatch.setattr(liveness, "get_client", lambda **_: nullcontext())
    monkeypatch.setattr(liveness, "_under_way", lambda *_: [overdue])
    monkeypatch.setattr(liveness.os, "kill", lambda *sent: signals.append(sent))
    told: set[UUID] = set()
    assert [liveness.stop_cancelled_runs("f", told) for _ in range(2)] == [["demo"], []]
    assert signals == [(os.getpid(), signal.SIGTERM)]


@pytest.mark.parametrize("error", [ProcessLookupError, PermissionError])
def test_cancelled_run_that_cannot_be_told_stops_no_other(monkeypatch: pytest.MonkeyPatch, error: type) -> None:
    overdue = [in_state(61).model_copy(update={"id": uuid4(), "name": name}) for name in ("gone", "demo")]
    answers = [error(), None]
    monkeypatch.setattr(liveness, "get_client", lambda **_: nullcontext())
    monkeypatch.setattr(liveness, "_under_way", lambda *_: overdue)

    def kill(*_: int) -> None:
        if answer := answers.pop(0):
            raise answer

    monkeypatch.setattr(liveness.os, "kill", kill)
    assert liveness.stop_cancelled_runs("f", set()) == ["demo"]
