"""The backends by the scheme of a store's URL."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from storage.backends.base import Files
from storage.backends.local import LocalFiles
from storage.backends.s3 import S3Files
from storage.errors import InputError


def open_files(url: str) -> Files:
    """Open a root given as a local folder, `file:///...` or `s3://bucket/prefix`.

    Raises: InputError for any other scheme, and for a place that cannot hold a store.
    """
    scheme, _, rest = url.partition("://")
    if rest and scheme.lower() == "s3":
        return S3Files(f"s3://{rest}")
    if rest and scheme.lower() == "file":
        parts = urlsplit(url)
        if parts.netloc not in ("", "localhost"):
            raise InputError(f"a file:// store must be on this machine, found {url!r}; write file:///folder")
        return LocalFiles(Path(unquote(parts.path)))
    if "://" not in url and url:
        return LocalFiles(Path(url))
    raise InputError(
        f"the store must be a local folder or s3://bucket/prefix, found {url!r}; "
        f"other object stores speak S3: set AWS_ENDPOINT_URL and use s3://"
    )
