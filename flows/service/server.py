"""Whether a Prefect server answers, and how long one may take to."""

import httpx

START_SECONDS = 120.0
"""The first start of a server migrates its database: 15 s on two cores, more on a slow disk."""


def is_server(api_url: str) -> bool:
    """Say whether a Prefect server answers at this address."""
    try:
        return httpx.get(f"{api_url.rstrip('/')}/health", timeout=2.0).status_code == 200
    except httpx.HTTPError:
        return False
