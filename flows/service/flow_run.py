"""The flow, run by one command: with the Prefect server that is configured if it answers, else with its own.

Prefect reads its settings when it is imported, so `flows.service.settings.apply` comes before this module.
"""

import os
import signal
from typing import Any

from prefect.client.schemas.objects import State
from prefect.context import refresh_global_settings_context
from prefect.exceptions import TerminationSignal
from prefect.logging.handlers import APILogHandler
from prefect.settings import get_current_settings

from flows.liveness import mark_dead_runs
from flows.pipeline import pile_pipeline, what_stopped
from flows.service.embedded import start_server
from flows.service.server import is_server
from flows.service.settings import embedded_client


def run_flow(**parameters: Any) -> str:
    """Run `pile-pipeline` with these parameters; return the run's id.

    Prefect's own temporary server would outlive a killed parent, and threads would not know its address; an
    address in the environment is known to all. Raises: Fault if no server can be started; what stopped the run.
    """
    settings = get_current_settings()
    if not settings.api.url or not is_server(settings.api.url):
        os.environ |= {"PREFECT_API_URL": start_server(settings.home), **embedded_client()}
        refresh_global_settings_context()
    mark_dead_runs(pile_pipeline.name)
    try:
        state: State[str] = pile_pipeline(**parameters, return_state=True)  # type: ignore[assignment]
        stopped = what_stopped()
        if isinstance(stopped, TerminationSignal):
            signal.raise_signal(
                stopped.signal
            )  # Prefect had taken the place of our handler, which says how to end
        if stopped is not None:
            raise stopped
        run_id: str = state.result()
        return run_id
    finally:
        APILogHandler().flush()  # the server ends before Prefect's log worker does
