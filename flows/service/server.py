"""Whether a Prefect server answers, and how long one may take to."""

import http.client
import urllib.request

START_SECONDS = 120.0
"""The first start of a server migrates its database: 15 s on two cores, more on a slow disk."""


def is_server(api_url: str, seconds: float = 2.0) -> bool:
    """Say whether a Prefect server answers at this address within so many seconds."""
    # Not httpx: each call of it reads all certificates of the system, 30 ms of CPU, and this is called in a loop.
    try:
        with urllib.request.urlopen(f"{api_url.rstrip('/')}/health", timeout=seconds) as answer:
            return bool(answer.status == 200)
    except (OSError, http.client.HTTPException, ValueError):  # ValueError: an address that is none
        return False
