"""Prefect for one command: the server that is configured if it answers, else one inside this run."""

import contextlib
import os
from collections.abc import Iterator

from flows.services import is_server, quiet_prefect


@contextlib.contextmanager
def prefect_session() -> Iterator[None]:
    """Make Prefect usable and silent on the console; the stages' own log lines are shown by `pile`.

    Must be entered before anything else of Prefect is imported.
    """
    os.environ.update(quiet_prefect())
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    from prefect.settings import (  # noqa: PLC0415 - after its settings are made
        PREFECT_API_URL,
        PREFECT_SERVER_ALLOW_EPHEMERAL_MODE,
        get_current_settings,
        temporary_settings,
    )

    configured = get_current_settings().api.url
    if configured and is_server(configured):
        yield
        return
    with temporary_settings({PREFECT_API_URL: None, PREFECT_SERVER_ALLOW_EPHEMERAL_MODE: True}):
        yield
