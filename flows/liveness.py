"""Which process a flow run is, so that a run whose process is gone does not count as running for ever.

A run says so in its labels on the Prefect server. An embedded server's automations end with it, so each start
looks for runs of this machine whose process is gone; runs of other machines are left to the automation of
`pile up` (flows/service/zombies.py), which goes by heartbeats.
"""

import contextlib
import logging
import os
import signal
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.states import Crashed

from storage.artifacts.processes import host_identity, start_of_process

log = logging.getLogger(__name__)

HOST, MACHINE, PROCESS, START = "pile.host", "pile.machine", "pile.process", "pile.process-start"
UNDER_WAY = [StateType.RUNNING, StateType.CANCELLING]
CANCEL_SECONDS = 60.0
"""A worker stops a run that is cancelled sooner. One that was started again does not know what ran before it."""

PAGE = 200
"""Runs asked for at once, the most that a Prefect server gives."""


def label_process(client: SyncPrefectClient, flow_run_id: UUID) -> None:
    """Say on the server that the flow run is the present process."""
    client.update_flow_run_labels(
        flow_run_id,
        {HOST: host_identity(), MACHINE: _machine(), PROCESS: os.getpid(), START: start_of_process(os.getpid())},
    )


def mark_dead_runs(flow_name: str) -> list[str]:
    """Mark runs of the flow as Crashed whose process on this machine is gone; return their names.

    So are tasks that count as running although their run has crashed: Prefect itself changes the run alone.
    """
    marked = []
    with get_client(sync_client=True) as client:
        for run in _under_way(client, flow_name):
            if reason := _death(run):
                _mark(client, run, reason)
                marked.append(run.name)
        _mark_tasks(client, FlowRunFilter(state=_in_state(StateType.CRASHED)), "its run has crashed")
    return marked


def stop_cancelled_runs(flow_name: str, told: set[UUID]) -> list[str]:
    """Stop runs on this machine that work on though they were cancelled a while ago; return their names.

    `told` keeps those that were told from call to call: a second signal would disturb what they save.
    """
    stopped = []
    with get_client(sync_client=True) as client:
        for run in _under_way(client, flow_name):
            if run.id not in told and _works_on(run):
                try:
                    os.kill(int(run.labels[PROCESS]), signal.SIGTERM)
                except (ProcessLookupError, PermissionError):  # it has just ended; another user's
                    continue
                told.add(run.id)
                stopped.append(run.name)
    return stopped


def _works_on(run: FlowRun) -> bool:
    if run.state is None or run.state.type != StateType.CANCELLING or run.labels.get(HOST) != host_identity():
        return False
    waited = (datetime.now(UTC) - run.state.timestamp).total_seconds()
    return waited > CANCEL_SECONDS and bool(run.labels.get(START)) and not _death(run)


def _under_way(client: SyncPrefectClient, flow_name: str) -> list[FlowRun]:
    found: list[FlowRun] = []
    while True:
        page = client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=[flow_name])),
            flow_run_filter=FlowRunFilter(state=_in_state(*UNDER_WAY)),
            limit=PAGE,
            offset=len(found),
        )
        found += page
        if len(page) < PAGE:
            return found


def _death(run: FlowRun) -> str:
    """Return how it is known that the process of a run is gone; empty if it is not known."""
    labels = run.labels
    host, started = str(labels.get(HOST, "")), str(labels.get(START, ""))
    if not host or not started:
        return ""  # of an older release, or of a system that does not tell
    if host == host_identity():
        gone = start_of_process(int(labels[PROCESS])) != started
        return f"its process {labels[PROCESS]} is gone" if gone else ""
    name, _, boot = host.partition(" ")
    our_name, _, our_boot = host_identity().partition(" ")
    same_machine = name == our_name and labels.get(MACHINE) == _machine() != ""
    # Same machine, another start of it: boot id and process namespace follow the name.
    if same_machine and boot.split(" ")[:1] != our_boot.split(" ")[:1]:
        return "its machine was started again"
    return ""


def _mark(client: SyncPrefectClient, run: FlowRun, reason: str) -> None:
    _mark_tasks(client, FlowRunFilter(id=FlowRunFilterId(any_=[run.id])), reason)
    client.set_flow_run_state(run.id, _crashed(reason), force=True)
    log.info("run %s is marked as crashed: %s", run.name, reason)


def _mark_tasks(client: SyncPrefectClient, of_runs: FlowRunFilter, reason: str) -> None:
    under_way = TaskRunFilterState(type=TaskRunFilterStateType(any_=UNDER_WAY))
    for task_run in client.read_task_runs(flow_run_filter=of_runs, task_run_filter=TaskRunFilter(state=under_way)):
        client.set_task_run_state(task_run.id, _crashed(reason), force=True)


def _crashed(reason: str) -> State[None]:
    return Crashed(message=f"{reason}; the next run continues from the parts that are finished")


def _in_state(*types: StateType) -> FlowRunFilterState:
    return FlowRunFilterState(type=FlowRunFilterStateType(any_=list(types)))


def _machine() -> str:
    with contextlib.suppress(OSError):
        return Path("/etc/machine-id").read_text().strip()
    return ""
