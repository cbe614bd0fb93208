"""A stage as a Prefect task, on a real (temporary) Prefect server: states, retries, log lines, tables."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName, LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import TaskRunSort
from prefect.exceptions import TerminationSignal
from prefect.settings import PREFECT_API_URL
from prefect.states import State
from prefect.testing.utilities import prefect_test_harness

from flows.liveness import label_process, mark_dead_runs
from flows.service import zombies
from storage.artifacts.records import Part
from storage.artifacts.store import Store
from storage.config import Config
from storage.errors import Fault, InputError, LostWorkersError
from tasks.core.context import StageContext
from tasks.core.execution import Execution
from tasks.core.prefect_task import run_as_task
from tasks.core.stage import RunContext, Stage

pytestmark = [pytest.mark.e2e]


class NoConfig(Config):
    pass


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=90):
        yield


class FailingStage:
    """Fails with the given errors, one per attempt, then writes a part."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.attempts = 0

    def __call__(self, config: NoConfig, *, context: StageContext) -> list[Part]:
        import logging

        self.attempts += 1
        if self.errors:
            raise self.errors.pop(0)
        line = threading.Thread(target=logging.getLogger("tasks.toy").info, args=("said in a thread",))
        line.start()
        line.join()
        context.progress(1, 2, "lines")
        context.table("What it did", [{"attempts": self.attempts}])
        local = context.writer.scratch() / "out.txt"
        local.write_text("done")
        return [context.writer.commit("out", {"text": local})]


def run(stage_function: FailingStage, store: Path, *, force: bool = False) -> tuple[State, str]:
    stage = Stage("toy", 1, NoConfig, stage_function)
    context = RunContext(store=Store(str(store)), run_id="test", recipe={}, execution=Execution())
    flow_runs = []

    @flow(name="toy-flow")
    def toy_flow() -> State:
        from prefect.runtime import flow_run

        flow_runs.append(flow_run.id)
        try:
            states.append(run_as_task(stage, NoConfig(), {}, context, force=force, after=[]))
        except BaseException as error:  # noqa: BLE001 - Prefect would send a signal to the whole test session
            raised.append(error)

    states: list[State] = []
    raised: list[BaseException] = []
    toy_flow()
    if raised:
        raise raised[0]
    return states[0], flow_runs[0]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "tasks.core.prefect_task.exponential_backoff", lambda backoff_factor: lambda retries: [0.0]
    )


def test_task_that_meets_faults_is_tried_again_until_it_succeeds(tmp_path: Path) -> None:
    stage_function = FailingStage(Fault("the network was away"), OSError("and then the disk"))
    state, _ = run(stage_function, tmp_path)
    assert state.is_completed()
    assert stage_function.attempts == 3


def test_task_that_is_forced_stays_forced_in_its_retries(tmp_path: Path) -> None:
    run(FailingStage(), tmp_path)
    stage_function = FailingStage(Fault("once"))
    state, _ = run(stage_function, tmp_path, force=True)
    assert (state.name, stage_function.attempts) == ("Completed", 2)
    assert not state.result().cached


@pytest.mark.parametrize(
    "error", [InputError("the corpus must hold text"), LostWorkersError("filter of train-00001 cost 2 workers")]
)
def test_task_that_no_retry_can_help_fails_at_the_first_attempt(tmp_path: Path, error: Exception) -> None:
    stage_function = FailingStage(error, Fault("never reached"))
    state, _ = run(stage_function, tmp_path)
    assert state.is_failed()
    assert stage_function.attempts == 1
    assert state.result(raise_on_failure=False) is error


def test_task_whose_artifact_is_finished_ends_as_cached(tmp_path: Path) -> None:
    first, _ = run(FailingStage(), tmp_path)
    second, _ = run(FailingStage(), tmp_path)
    assert (first.name, second.name) == ("Completed", "Cached")
    assert second.result().artifact.manifest == first.result().artifact.manifest


def test_task_shows_lines_of_threads_tables_and_progress_in_its_run(tmp_path: Path) -> None:
    _, flow_run_id = run(FailingStage(), tmp_path)
    from prefect.logging.handlers import APILogHandler

    APILogHandler().flush()
    with get_client(sync_client=True) as client:
        logs = client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[flow_run_id])))
        artifacts = client.request("POST", "/artifacts/filter", json={}).json()
    assert "said in a thread" in [line.message for line in logs]
    mine = {artifact["key"] for artifact in artifacts if artifact["flow_run_id"] == str(flow_run_id)}
    assert mine == {"toy-what-it-did", "toy-progress"}


@pytest.mark.parametrize(
    ("error", "name"),
    [(KeyboardInterrupt(), "Interrupted"), (TerminationSignal(15), "Cancelled")],
    ids=["Ctrl-C", "SIGTERM"],
)
def test_task_that_is_stopped_ends_in_the_state_of_that_name_and_raises_on(
    tmp_path: Path, error: BaseException, name: str
) -> None:
    stage_function = FailingStage(error, Fault("never reached: a stop is not tried again"))
    with pytest.raises(type(error)):
        run(stage_function, tmp_path)
    with get_client(sync_client=True) as client:
        newest = client.read_task_runs(sort=TaskRunSort.EXPECTED_START_TIME_DESC, limit=1)[0]
    assert (newest.state_type, newest.state_name) == (StateType.CANCELLED, name)
    assert stage_function.attempts == 1


def test_run_whose_process_is_gone_is_marked_and_one_that_lives_is_not() -> None:
    script = (
        "import os\n"
        "from prefect import flow\nfrom prefect.client.orchestration import get_client\n"
        "from prefect.runtime import flow_run\nfrom uuid import UUID\n"
        "from flows.liveness import label_process\n"
        "@flow(name='zombie-flow', flow_run_name='dead')\n"
        "def dead():\n"
        "    with get_client(sync_client=True) as client:\n"
        "        label_process(client, UUID(flow_run.id))\n"
        "    os.kill(os.getpid(), 9)\n"
        "dead()\n"
    )
    address = PREFECT_API_URL.value()
    killed = subprocess.run([sys.executable, "-c", script], env={**os.environ, "PREFECT_API_URL": address})
    assert killed.returncode == -9

    @flow(name="zombie-flow", flow_run_name="alive")
    def alive() -> list[str]:
        from prefect.runtime import flow_run

        with get_client(sync_client=True) as client:
            label_process(client, UUID(flow_run.id))
        return mark_dead_runs("zombie-flow")

    assert alive() == ["dead"]
    flows = FlowFilter(name=FlowFilterName(any_=["zombie-flow"]))
    with get_client(sync_client=True) as client:
        states = {each.name: each.state_name for each in client.read_flow_runs(flow_filter=flows)}
    assert states["dead"] == "Crashed"


def test_automation_is_registered_once_however_often() -> None:
    for _ in range(2):
        zombies.register()
    with get_client(sync_client=True) as client:
        (found,) = client.read_automations_by_name(zombies.NAME)
    assert found.trigger.within == timedelta(seconds=90)
    assert "prefect.flow-run.Interrupted" in found.trigger.expect
