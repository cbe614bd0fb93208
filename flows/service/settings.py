"""Settings of every Prefect process that we start."""

import os


def quiet_prefect() -> dict[str, str]:
    """Return them as environment variables: no telemetry, no impatience."""
    return {
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "90",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    }


def apply() -> None:
    """Make Prefect silent on this console; the stages' own log lines are shown by `pile`.

    Must be called before anything of Prefect is imported.
    """
    os.environ.update(quiet_prefect())
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
