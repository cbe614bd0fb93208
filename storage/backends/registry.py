"""The store's backends by the scheme of its URL; a URL without a scheme is a local folder.

A package adds one with an entry point of the group `pile_pipeline.backends`, named as the scheme in lower case.
"""

import re
from typing import Any

from storage.backends.base import OpenBackend, StoreBackend
from storage.errors import InputError
from storage.registry import Registry

SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
"""What a scheme can be: in a URL it may be written in capitals too, which mean the same."""


def check_backend(name: str, backend: Any) -> None:
    """Raise InputError unless this can be called with a URL and its name is a scheme."""
    if not SCHEME.fullmatch(name):
        raise InputError(
            "must be registered under a scheme, in lower case: letters, then also digits, +, - and ., "
            f"found {name!r}"
        )
    if not callable(backend):
        raise InputError(f"must be a function from a URL to a backend, or a class, found {backend!r:.200}")


BACKENDS: Registry[OpenBackend] = Registry(
    "backend",
    "pile_pipeline.backends",
    {
        "file": "storage.backends.local:open_folder",
        "s3": "storage.backends.s3:S3Backend",
    },
    check_backend,
)

FOLDER = "file"
"""The scheme of a URL that has none."""


def open_backend(url: str) -> StoreBackend:
    """Open the root that a URL names: a local folder, `file:///folder`, `s3://bucket/prefix`, a plug-in's.

    Raises: InputError for an unknown scheme, and for a place that cannot hold a store.
    """
    scheme, separator, rest = url.partition("://")
    if not separator and url:
        return BACKENDS.get(FOLDER)(url)
    registered = {name.lower(): name for name in sorted(BACKENDS.names())}  # capitals come first, and yield
    if not rest or scheme.lower() not in registered:
        known = ", ".join(f"{name}://" for name in BACKENDS.names())
        raise InputError(
            f"the store must be a local folder or a URL that begins with one of {known}, found {url!r}; most "
            f"other object stores speak S3: set AWS_ENDPOINT_URL and use s3://bucket/prefix"
        )
    return BACKENDS.get(registered[scheme.lower()])(f"{scheme.lower()}://{rest}")
