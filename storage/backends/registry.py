"""The store's backends by the scheme of its URL; a URL without a scheme is a local folder.

A package adds one with an entry point of the group `pile_pipeline.backends`, named as the scheme.
"""

from storage.backends.base import OpenBackend, StoreBackend
from storage.errors import InputError
from storage.registry import Registry

BACKENDS: Registry[OpenBackend] = Registry(
    "backend",
    "pile_pipeline.backends",
    {
        "file": "storage.backends.local:open_folder",
        "s3": "storage.backends.s3:S3Backend",
    },
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
    if not rest or scheme.lower() not in BACKENDS.names():
        known = ", ".join(f"{name}://" for name in BACKENDS.names())
        raise InputError(
            f"the store must be a local folder or a URL that begins with one of {known}, found {url!r}; most "
            f"other object stores speak S3: set AWS_ENDPOINT_URL and use s3://bucket/prefix"
        )
    return BACKENDS.get(scheme.lower())(f"{scheme.lower()}://{rest}")
