"""Whole files under one root: a local folder or an S3 prefix, through the same few calls.

A write is visible completely or not at all. Nothing above relies on rename, on conditional PUT or on the
order of a listing: data has names that no other attempt uses, and a record that names them comes last.
"""

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from storage.errors import InputError

TEMPORARY = "scratch"
"""Folder below a local root for files that are being written; same disk, so that they can be renamed."""


class Files(Protocol):
    """What the store needs from a place that keeps files. Paths are relative, with `/`."""

    url: str

    def read(self, path: str) -> bytes:
        """Return the content. Raises FileNotFoundError."""

    def write(self, path: str, data: bytes) -> None:
        """Write a small file, replacing what was there."""

    def create(self, path: str, data: bytes) -> bool:
        """Write a small file unless one is there; False if so. May fail to notice: saves work only."""

    def put(self, local: Path, path: str) -> None:
        """Take over a finished local file, which is gone afterwards."""

    def fetch(self, path: str, local: Path) -> None:
        """Copy a file to a local path. Raises FileNotFoundError."""

    def size(self, path: str) -> int:
        """Return the size in bytes. Raises FileNotFoundError."""

    def list(self, folder: str) -> Iterator[tuple[str, int, float]]:
        """Yield (path, bytes, modification time) of every file below `folder`, sorted by path."""

    def delete(self, path: str) -> None:
        """Remove a file; no error if it is not there."""

    def local(self, path: str) -> Path | None:
        """Return where the file lies on this machine, None if it does not."""


def open_files(url: str) -> Files:
    """Open a root given as a local folder, `file://...` or `s3://bucket/prefix`.

    Raises: InputError for any other scheme.
    """
    parts = urlsplit(url)
    if parts.scheme == "s3":
        return S3Files(url)
    if parts.scheme == "file":
        return LocalFiles(Path(parts.path))
    if "://" not in url:
        return LocalFiles(Path(url))
    raise InputError(
        f"the store must be a local folder or s3://bucket/prefix, found {url!r}; "
        f"other object stores speak S3: set AWS_ENDPOINT_URL and use s3://"
    )


class LocalFiles:
    """Files in a folder of this machine, written through a temporary name, flushed and renamed."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()
        self.url = str(self.root)

    def read(self, path: str) -> bytes:
        """Return the content."""
        return (self.root / path).read_bytes()

    def write(self, path: str, data: bytes) -> None:
        """Write through a temporary file."""
        temporary = self._written(data)
        self._publish(temporary, path, replace=True)

    def create(self, path: str, data: bytes) -> bool:
        """Write only if absent; exact on a local disk."""
        temporary = self._written(data)
        try:
            self._publish(temporary, path, replace=False)
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def put(self, local: Path, path: str) -> None:
        """Rename a file of the same disk, copy one from another."""
        with local.open("rb") as file:
            os.fsync(file.fileno())
        try:
            self._publish(local, path, replace=True)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            copy = self._temporary()
            try:
                shutil.copyfile(local, copy)
                self._publish(copy, path, replace=True)
            finally:
                copy.unlink(missing_ok=True)
            local.unlink()

    def fetch(self, path: str, local: Path) -> None:
        """Copy the file."""
        shutil.copyfile(self.root / path, local)

    def size(self, path: str) -> int:
        """Return the size in bytes."""
        return (self.root / path).stat().st_size

    def list(self, folder: str) -> Iterator[tuple[str, int, float]]:
        """Walk the folder; files that vanish meanwhile are left out."""
        found = []
        for where, _, names in os.walk(self.root / folder):
            for name in names:
                path = Path(where) / name
                try:
                    status = path.stat()
                except FileNotFoundError:
                    continue
                found.append((path.relative_to(self.root).as_posix(), status.st_size, status.st_mtime))
        yield from sorted(found)

    def delete(self, path: str) -> None:
        """Remove the file and the folders that it leaves empty."""
        target = self.root / path
        target.unlink(missing_ok=True)
        for folder in target.parents:
            if folder == self.root:
                break
            try:
                folder.rmdir()
            except OSError:  # not empty, or another process was faster
                break

    def local(self, path: str) -> Path | None:
        """Return the path itself."""
        return self.root / path

    def _temporary(self) -> Path:
        folder = self.root / TEMPORARY / "writes"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / uuid.uuid4().hex

    def _written(self, data: bytes) -> Path:
        temporary = self._temporary()
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        return temporary

    def _publish(self, temporary: Path, path: str, *, replace: bool) -> None:
        target = self.root / path
        for attempt in range(3):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                if replace:
                    os.replace(temporary, target)
                else:
                    os.link(temporary, target)
                return _flush_folder(target.parent)
            except FileNotFoundError:  # another process has just deleted the last file of the folder
                if attempt == 2 or not temporary.exists():
                    raise


class S3Files:
    """Files under an S3 prefix. One PUT (or one completed multipart upload) is atomic on every server."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.prefix = self.url.removeprefix("s3://")
        if not self.prefix:
            raise InputError("an S3 store must name its bucket, found 's3://'; write s3://bucket/prefix")
        self._process = 0
        self._filesystem: Any = None

    @property
    def filesystem(self) -> Any:
        """The s3fs file system of this process; s3fs refuses to work across a fork."""
        if self._process != os.getpid():
            import s3fs  # noqa: PLC0415 - a quarter of a second that a local store need not pay

            self._filesystem = s3fs.S3FileSystem(
                skip_instance_cache=True,
                use_listings_cache=False,  # the cache hides what other processes wrote
                # s3fs retries on its own; on top of botocore's retries a 503 would be sent 25 times.
                config_kwargs={"retries": {"max_attempts": 0}},
            )
            self._process = os.getpid()
        return self._filesystem

    def read(self, path: str) -> bytes:
        """Return the content."""
        return self.filesystem.cat_file(self._key(path))

    def write(self, path: str, data: bytes) -> None:
        """Write with one PUT."""
        self.filesystem.pipe_file(self._key(path), data)

    def create(self, path: str, data: bytes) -> bool:
        """Write with a conditional PUT where the server knows it."""
        try:
            self.filesystem.pipe_file(self._key(path), data, mode="create")
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # Swift and Ceph answer EINVAL where AWS answers "exists".
            return self.read(path) == data
        return True

    def put(self, local: Path, path: str) -> None:
        """Upload and remove the local file."""
        self.filesystem.put_file(str(local), self._key(path))
        local.unlink()

    def fetch(self, path: str, local: Path) -> None:
        """Download the file."""
        self.filesystem.get_file(self._key(path), str(local))

    def size(self, path: str) -> int:
        """Return the size in bytes."""
        return int(self.filesystem.info(self._key(path))["size"])

    def list(self, folder: str) -> Iterator[tuple[str, int, float]]:
        """List the prefix."""
        for key, info in sorted(self.filesystem.find(self._key(folder), detail=True).items()):
            modified = info["LastModified"].timestamp() if "LastModified" in info else 0.0
            yield key.removeprefix(self.prefix + "/"), int(info["size"]), modified

    def delete(self, path: str) -> None:
        """Remove the object."""
        self.filesystem.rm_file(self._key(path))

    def local(self, path: str) -> Path | None:
        """Return None: objects must be fetched."""
        return None

    def _key(self, path: str) -> str:
        return f"{self.prefix}/{path}"


def _flush_folder(folder: Path) -> None:
    # A rename is on disk only when the folder that holds the name is.
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
