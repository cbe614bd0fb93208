"""Settings of every Prefect process that we start."""

import contextlib
import gc
import os
from collections.abc import Iterator

LOOPBACK = ("127.0.0.1", "localhost")
"""Hosts of servers that we start."""

HEARTBEAT_SECONDS = 30
"""How often a flow run says that it lives; the least that Prefect takes."""

SILENT_SECONDS = 90
"""A run that said nothing for so long has crashed: three heartbeats."""


def quiet_prefect() -> dict[str, str]:
    """Return them as environment variables: no telemetry, no impatience, heartbeats."""
    return {
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "90",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS),
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    }


def unproxied(*hosts: str) -> dict[str, str]:
    """Return the environment variables by which these hosts are asked directly, whatever proxy others need."""
    named = [host.strip() for host in (os.environ.get("no_proxy") or os.environ.get("NO_PROXY", "")).split(",")]
    value = ",".join(filter(None, named if "*" in named else dict.fromkeys([*named, *hosts])))
    return {"no_proxy": value, "NO_PROXY": value}


def embedded_server() -> dict[str, str]:
    """Return what the server of one command has besides: none of what serves schedules, workers and people.

    What records runs stays: states, log lines and artifacts. Events are not kept, or they would have to be tidied
    up at every start.
    """
    off = (
        *("TRIGGERS", "EVENT_PERSISTER", "SCHEDULER", "LATE_RUNS", "FOREMAN", "REPOSSESSOR"),
        *("CANCELLATION_CLEANUP", "PAUSE_EXPIRATIONS"),
    )
    return {
        **{f"PREFECT_SERVER_SERVICES_{name}_ENABLED": "false" for name in off},
        "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",  # kinds of Prefect's stores: nothing of ours uses one
        "PREFECT_UI_ENABLED": "false",
        "PREFECT__SERVER_EPHEMERAL": "1",
        "PY_KEY_VALUE_DISABLE_BEARTYPE": "true",  # a library of Prefect's checks its own argument types: 0.2 s
    }


def embedded_client() -> dict[str, str]:
    """Return what a flow has besides that is run with an embedded server: no browser whose requests are forged."""
    return {"PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "false"}


def apply() -> None:
    """Make Prefect silent on this console; the stages' own log lines are shown by `pile`.

    Must be called before anything of Prefect is imported.
    """
    os.environ.update({**quiet_prefect(), **unproxied(*LOOPBACK)})
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")


@contextlib.contextmanager
def quick_imports() -> Iterator[None]:
    """Import what is large and stays: to look for garbage in it again and again takes a third of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_on:
            gc.enable()
