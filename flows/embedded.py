"""Prefect for one command: the server that is configured if it answers, else one inside this run."""

import contextlib
import os

from flows.services import is_server, quiet_prefect

_settings = contextlib.ExitStack()
"""Holds Prefect's settings for the life of the process; they end when the context is collected."""


def prepare_prefect() -> None:
    """Make Prefect usable and silent on the console; the stages' own log lines are shown by `pile`.

    Must be called before anything else of Prefect is imported, once per process: the settings stay, because
    Prefect still sends log lines to its server while the interpreter ends.
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
    if not configured or not is_server(configured):
        embedded = {PREFECT_API_URL: None, PREFECT_SERVER_ALLOW_EPHEMERAL_MODE: True}
        _settings.enter_context(temporary_settings(embedded))


def send_log_lines() -> None:
    """Wait until Prefect has sent its log lines: its own server ends before its log worker does."""
    from prefect.logging.handlers import APILogHandler  # noqa: PLC0415 - as above

    APILogHandler().flush()
