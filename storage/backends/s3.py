"""Files under an S3 prefix, through s3fs; endpoint and credentials come from the usual AWS_* variables.

One PUT (or one completed multipart upload) is atomic on every server that is fit for a store. Whatever goes wrong
on the way is a `Fault` that says what to check: a store that cannot be reached must never look like an empty one.
"""

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from storage.backends.base import StoreBackend
from storage.errors import Fault, InputError

TRIES = 3
"""Requests per call before a server that answers 5xx or drops connections counts as down: a few seconds."""

PIECE_BYTES = 16 << 20
"""How much of an object is in memory while it is hashed."""

UPLOAD = "?uploadId="
"""Separates path and upload in the name of an unfinished upload."""


class S3Backend(StoreBackend):
    """Files under an S3 prefix. How exact `create` is depends on the server: conditional PUT is not in all."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.prefix = self.url.removeprefix("s3://")
        self.bucket, _, self.folder = self.prefix.partition("/")
        if not self.bucket:
            raise InputError(f"an S3 store must name its bucket, found {url!r}; write s3://bucket/prefix")
        if "@" in self.bucket:
            raise InputError(
                "an S3 store must not contain credentials, since its address is kept with the results; "
                "put them into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or ~/.aws/credentials"
            )
        self._process = 0
        self._filesystem: Any = None

    @property
    def filesystem(self) -> Any:
        """The s3fs file system of this process; s3fs refuses to work across a fork."""
        if self._process != os.getpid():
            import s3fs  # noqa: PLC0415 - a quarter of a second that a local store need not pay

            filesystem = s3fs.S3FileSystem(
                skip_instance_cache=True,
                use_listings_cache=False,  # the cache hides what other processes wrote
                config_kwargs={"retries": {"mode": "standard", "total_max_attempts": TRIES}},
            )
            # The retries of s3fs multiply those of botocore; two tries are left for a body that breaks off.
            filesystem.retries = 2
            self._filesystem, self._process = filesystem, os.getpid()
        return self._filesystem

    def read(self, path: str) -> bytes:
        """Return the content, with one request: a record that is being replaced is read old or new."""
        with self._explained(path):
            data: bytes = self.filesystem.cat_file(self._key(path), max_concurrency=1)
            return data

    def write(self, path: str, data: bytes) -> None:
        """Write with one PUT."""
        with self._explained(path):
            self.filesystem.pipe_file(self._key(path), data)

    def create(self, path: str, data: bytes) -> bool:
        """Write with a conditional PUT where the server knows it."""
        with self._explained(path):
            try:
                self.filesystem.pipe_file(self._key(path), data, mode="create")
                return True
            except FileExistsError:
                pass
            except OSError as error:
                # Swift and Ceph answer with a bare 412; AWS with 409 while another creation is under way.
                if _code(error) not in ("PreconditionFailed", "412", "ConditionalRequestConflict") and not (
                    _code(error) == "" and error.errno == errno.EINVAL
                ):
                    raise
        try:
            return self.read(path) == data  # ours after all, if the answer to a first try was lost
        except FileNotFoundError:
            return False

    def put(self, local: Path, path: str) -> None:
        """Upload and remove the local file."""
        with self._explained(path):
            self.filesystem.put_file(str(local), self._key(path))
        local.unlink()

    def fetch(self, path: str, local: Path) -> None:
        """Download the file."""
        with self._explained(path):
            self.filesystem.get_file(self._key(path), str(local))

    def size(self, path: str) -> int:
        """Return the size in bytes."""
        with self._explained(path):
            info = self.filesystem.info(self._key(path))
        if info["type"] != "file":
            raise FileNotFoundError(path)
        return int(info["size"])

    def digest(self, path: str) -> tuple[int, str]:
        """Download and hash the object piece by piece."""
        size = self.size(path)
        sha256 = hashlib.sha256()
        with self._explained(path):
            for start in range(0, size, PIECE_BYTES):
                stop = min(start + PIECE_BYTES, size)
                sha256.update(self.filesystem.cat_file(self._key(path), start=start, end=stop))
        return size, sha256.hexdigest()

    def list(self, folder: str) -> Iterator[tuple[str, int, float]]:
        """List the prefix, without the empty objects that some tools make to stand for a folder."""
        with self._explained(folder):
            found = self.filesystem.find(self._key(folder), detail=True)
        for key, info in sorted(found.items()):
            if info["type"] == "file" and not key.endswith("/"):
                yield key.removeprefix(self.prefix + "/"), int(info["size"]), info["LastModified"].timestamp()

    def delete(self, path: str) -> None:
        """Remove the object."""
        with contextlib.suppress(FileNotFoundError), self._explained(path):
            self.filesystem.rm_file(self._key(path))

    def unfinished(self) -> Iterator[tuple[str, int, float]]:
        """Yield multipart uploads that were not completed; their parts are stored, and paid for, invisibly."""
        prefix = f"{self.folder}/" if self.folder else ""
        markers = ("KeyMarker", "UploadIdMarker")
        for upload in self._pages("list_multipart_uploads", "Uploads", markers, Prefix=prefix):
            which = {"Key": upload["Key"], "UploadId": upload["UploadId"]}
            size = sum(
                int(part["Size"]) for part in self._pages("list_parts", "Parts", ("PartNumberMarker",), **which)
            )
            name = upload["Key"].removeprefix(prefix) + UPLOAD + upload["UploadId"]
            yield name, size, upload["Initiated"].timestamp()

    def abandon(self, name: str) -> None:
        """Abort a multipart upload."""
        path, _, upload = name.rpartition(UPLOAD)
        key = self._key(path).partition("/")[2]
        with contextlib.suppress(FileNotFoundError), self._explained(path):
            self.filesystem.call_s3("abort_multipart_upload", Bucket=self.bucket, Key=key, UploadId=upload)

    def _pages(self, method: str, entries: str, markers: tuple[str, ...], **options: Any) -> Iterator[Any]:
        while True:
            with self._explained(method):
                try:
                    page = self.filesystem.call_s3(method, Bucket=self.bucket, **options)
                except FileNotFoundError as error:  # completed or aborted since it was listed
                    if _code(error) == "NoSuchUpload":
                        return
                    raise
            yield from page.get(entries, [])
            if not page.get("IsTruncated"):
                return
            options |= {marker: page[f"Next{marker}"] for marker in markers}

    def _key(self, path: str) -> str:
        return f"{self.prefix}/{path}"

    @contextlib.contextmanager
    def _explained(self, path: str) -> Iterator[None]:
        try:
            yield
        except FileExistsError:
            raise
        except _failures() as error:
            if isinstance(error, FileNotFoundError) and error.filename is None and _code(error) != "NoSuchBucket":
                raise  # the object is not there; with a file name, it is a local file that is not
            raise Fault(
                f"the store must answer, but {self.url}/{path} failed: {type(error).__name__}: {error}; "
                f"{_advice(error)}"
            ) from error


def _failures() -> tuple[type[Exception], ...]:
    # Evaluated only when something was raised; by then these modules are loaded. s3fs lets errors of all through.
    from aiohttp import ClientError  # noqa: PLC0415 - loaded with s3fs
    from botocore.exceptions import BotoCoreError  # noqa: PLC0415 - loaded with s3fs

    return OSError, ValueError, BotoCoreError, ClientError


def _code(error: BaseException) -> str:
    """Return the error code in the server's answer, empty if there was no answer."""
    response = getattr(error.__cause__ or error, "response", None)
    return str(response["Error"].get("Code", "")) if isinstance(response, dict) else ""


def _advice(error: Exception) -> str:
    if _code(error) == "NoSuchBucket":
        return "create the bucket, or correct the URL of the store"
    if isinstance(error, PermissionError) or "Credential" in type(error).__name__:
        return (
            "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE), and that they may read, write, "
            "list and delete in this bucket"
        )
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "not set, so AWS"
    return (
        f"check the network, AWS_ENDPOINT_URL ({endpoint}) and AWS_DEFAULT_REGION, then run again: "
        f"what is finished is kept"
    )
