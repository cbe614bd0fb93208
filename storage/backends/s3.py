"""Files under an S3 prefix, through s3fs; endpoint and credentials come from the usual AWS_* variables.

One PUT (or one completed multipart upload) is atomic on every server that is fit for a store. What goes wrong on
the way is explained in `storage.backends.s3_errors`: a store that cannot be reached never looks like an empty one.
"""

import contextlib
import errno
import hashlib
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

from storage.backends.base import StoreBackend
from storage.errors import InputError

BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")
"""What some server takes for a bucket; AWS, with its 63 small letters, is stricter, and says so itself."""

PIECE_BYTES = 16 << 20
"""How much of an object is in memory while it is hashed."""

EPOCH = datetime.fromtimestamp(0, UTC)

UPLOAD = "?uploadId="
"""Separates path and upload in the name of an unfinished upload."""


class S3Backend(StoreBackend):
    """Files under an S3 prefix. How exact `create` is depends on the server: conditional PUT is not in all."""

    def __init__(self, url: str) -> None:
        _check(url)
        self.url = url.removesuffix("/")
        self.prefix = self.url.removeprefix("s3://")
        self.bucket, _, self.folder = self.prefix.partition("/")
        self._process = 0
        self._filesystem: Any = None

    @property
    def filesystem(self) -> Any:
        """The s3fs file system of this process; s3fs refuses to work across a fork."""
        if self._process != os.getpid():
            from storage.backends.s3_filesystem import connect  # noqa: PLC0415 - a quarter of a second

            self._filesystem, self._process = connect(), os.getpid()
        return self._filesystem

    def probe(self) -> None:
        """List one object."""
        prefix = f"{self.folder}/" if self.folder else ""
        with self._explained(""):
            found = self.filesystem.call_s3("list_objects_v2", Bucket=self.bucket, Prefix=prefix, MaxKeys=1)
            if "IsTruncated" not in found:
                raise ValueError("the answer to a listing is none")  # some web site

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
                code = _errors().code_of(error)
                is_refusal = code in ("PreconditionFailed", "412", "ConditionalRequestConflict")
                if not is_refusal and not (code == "" and error.errno == errno.EINVAL):
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
            if any(not isinstance(info.get("LastModified", EPOCH), datetime) for info in found.values()):
                raise ValueError("the answer to a listing is none")  # some web site
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
                    if _errors().code_of(error) == "NoSuchUpload":
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
        except Exception as error:
            errors = _errors()
            if errors.is_absent(error) or not isinstance(error, errors.RAISED):
                raise
            place = errors.Place(self.url, self.bucket, path, self.must_exist)
            raise errors.explained(error, place) from error


def _errors() -> ModuleType:
    from storage.backends import s3_errors  # noqa: PLC0415 - aiohttp and botocore: loaded with s3fs by now

    return s3_errors


def _check(url: str) -> None:
    """Raise InputError unless the URL names a bucket, and folders that every tool understands in the same way."""
    bucket, _, folder = url.removeprefix("s3://").removesuffix("/").partition("/")
    if "@" in bucket:
        raise InputError(
            "an S3 store must not contain credentials, since its address is kept with the results; "
            "put them into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or ~/.aws/credentials"
        )
    if not bucket:
        raise InputError(f"an S3 store must name its bucket, found {url!r}; write s3://bucket/prefix")
    if "?" in url or "#" in url:
        raise InputError(
            f"an S3 store must be a bucket and a prefix, found a query or fragment in {url!r}; write "
            f"s3://bucket/prefix, and set AWS_ENDPOINT_URL and AWS_DEFAULT_REGION for the server"
        )
    if not BUCKET.fullmatch(bucket) or ".." in bucket:
        raise InputError(
            f"the bucket of an S3 store must be 3 to 63 letters, digits, '.', '-', found {bucket!r} in {url!r}; "
            f"write s3://bucket/prefix, and set AWS_ENDPOINT_URL for a server of your own"
        )
    if "//" in url.removeprefix("s3://") or (folder and any(n in ("", ".", "..") for n in folder.split("/"))):
        raise InputError(
            f"the prefix of an S3 store must be names with one / between them, none of them '.' or '..', found "
            f"{url!r}; write s3://{bucket}/{'/'.join(n for n in folder.split('/') if n not in ('', '.', '..'))}"
        )
