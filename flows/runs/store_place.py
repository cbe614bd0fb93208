"""Which store is meant. Imports nothing heavy: a shell asks while somebody types."""

import os
from pathlib import Path

DEFAULT_STORE = "pile-store"


def store_url(url: str | None) -> str:
    """Return the given URL, or that of PILE_STORE, or `pile-store` in the present folder."""
    return url or os.environ.get("PILE_STORE") or str(Path.cwd() / DEFAULT_STORE)
