"""The flow, run by one command: with the Prefect server that is configured if it answers, else with its own.

Prefect reads its settings when it is imported, so `flows.service.settings.apply` comes before this module.
"""

import os
from typing import Any

from prefect.context import refresh_global_settings_context
from prefect.logging.handlers import APILogHandler
from prefect.settings import get_current_settings

from flows.pipeline import pile_pipeline
from flows.service.embedded import start_server
from flows.service.server import is_server


def run_flow(**parameters: Any) -> str:
    """Run `pile-pipeline` with these parameters; return the run's id.

    Prefect's own temporary server would outlive a killed parent, and threads would not know its address; an
    address in the environment is known to all. Raises: Fault if no server can be started.
    """
    settings = get_current_settings()
    if not settings.api.url or not is_server(settings.api.url):
        os.environ["PREFECT_API_URL"] = start_server(settings.home)
        refresh_global_settings_context()
    try:
        run_id: str = pile_pipeline(**parameters)
        return run_id
    finally:
        APILogHandler().flush()  # the server ends before Prefect's log worker does
