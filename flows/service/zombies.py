"""The automation that ends zombies: runs that count as running but no longer send heartbeats."""

from datetime import timedelta

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

from flows.liveness import mark_dead_runs, stop_cancelled_runs
from flows.service.settings import HEARTBEAT_SECONDS, SILENT_SECONDS

NAME = "pile: runs without heartbeats have crashed"

HEARTBEAT = "prefect.flow-run.heartbeat"

ENDS = ("Completed", "Cached", "Failed", "Cancelled", "Interrupted", "Crashed", "Cancelling", "AwaitingRetry")
"""Names of the states in which a run rightly sends no more heartbeats; an event is named after each."""

__all__ = ["NAME", "automation", "mark_dead_runs", "register", "stop_cancelled_runs"]


def automation() -> AutomationCore:
    """Return it: a run that has sent a heartbeat must send another, or end, in SILENT_SECONDS."""
    return AutomationCore(
        name=NAME,
        description=f"Made by `pile up`: runs send a heartbeat every {HEARTBEAT_SECONDS} s.",
        trigger=EventTrigger(
            posture=Posture.Proactive,
            after={HEARTBEAT},
            expect={HEARTBEAT, *(f"prefect.flow-run.{name}" for name in ENDS)},
            match={"prefect.resource.id": ["prefect.flow-run.*"]},
            for_each={"prefect.resource.id"},
            threshold=1,
            within=timedelta(seconds=SILENT_SECONDS),
        ),
        actions=[
            ChangeFlowRunState(
                name=None,
                force=False,
                state=StateType.CRASHED,
                message=f"no heartbeat for {SILENT_SECONDS} s; the next run continues from the finished parts",
            )
        ],
    )


def register() -> None:
    """Create the automation on the server, or bring the one that is there up to date."""
    with get_client(sync_client=True) as client:
        present = client.read_automations_by_name(NAME)
        if present:
            client.update_automation(present[0].id, automation())
        else:
            client.create_automation(automation())
        for doubled in present[1:]:
            client.delete_automation(doubled.id)
