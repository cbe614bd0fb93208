"""The backends by the scheme of a store's URL."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from storage.backends.base import StoreBackend
from storage.backends.local import LocalBackend
from storage.backends.s3 import S3Backend
from storage.errors import InputError


def open_backend(url: str) -> StoreBackend:
    """Open a root given as a local folder, `file:///...` or `s3://bucket/prefix`.

    Raises: InputError for any other scheme, and for a place that cannot hold a store.
    """
    scheme, _, rest = url.partition("://")
    if rest and scheme.lower() == "s3":
        return S3Backend(f"s3://{rest}")
    if rest and scheme.lower() == "file":
        parts = urlsplit(url)
        if parts.netloc not in ("", "localhost"):
            raise InputError(f"a file:// store must be on this machine, found {url!r}; write file:///folder")
        return LocalBackend(Path(unquote(parts.path)))
    if "://" not in url and url:
        return LocalBackend(Path(url))
    raise InputError(
        f"the store must be a local folder or s3://bucket/prefix, found {url!r}; "
        f"other object stores speak S3: set AWS_ENDPOINT_URL and use s3://"
    )
