"""Whether a Prefect server answers, and the settings of every Prefect process that we start."""

import httpx

START_SECONDS = 120.0
"""The first start of a server migrates its database: 15 s on two cores, more on a slow disk."""


def quiet_prefect() -> dict[str, str]:
    """Return settings for every Prefect process that we start: no telemetry, no impatience."""
    return {
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "90",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    }


def is_server(api_url: str) -> bool:
    """Say whether a Prefect server answers at this address."""
    try:
        return httpx.get(f"{api_url.rstrip('/')}/health", timeout=2.0).status_code == 200
    except httpx.HTTPError:
        return False
