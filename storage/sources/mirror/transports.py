"""The two ways to a mirror's files: a folder of this machine, and HTTP."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from storage.errors import InputError
from storage.sources.checked_files import file_digest, file_status
from storage.sources.http.errors import MissingFile
from storage.sources.layout import CHECKSUMS, split_of
from storage.sources.progress import DownloadProgress


class Transport(Protocol):
    """What the mirror needs from a way to its files."""

    def read(self, name: str, limit: int) -> bytes:
        """Return a small file. Raises: MissingFile, InputError, Fault."""

    def fetch(self, name: str, sha256: str, folder: Path, progress: DownloadProgress) -> Path:
        """Return where the checked file lies: in `folder`, or where it always was. Raises: InputError, Fault."""

    def unlisted(self, listed: Mapping[str, str]) -> list[str]:
        """Return the names of corpus files that the mirror has without a checksum, as far as it can be known."""

    def close(self) -> None:
        """Release connections."""


class FolderTransport:
    """A mirror in a local folder: its files are checked where they lie."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        if not os.path.isdir(self.folder):  # no error for what can be no path
            raise InputError(f"the mirror must be a folder or an http(s) URL, found no folder {self.folder}")

    def read(self, name: str, limit: int) -> bytes:
        """Return a small file."""
        path = self.folder / name
        if not path.is_file():
            raise MissingFile(f"{path} must exist")
        if path.stat().st_size > limit:
            raise InputError(f"{path} must have at most {limit} bytes, found {path.stat().st_size}")
        return path.read_bytes()

    def fetch(self, name: str, sha256: str, folder: Path, progress: DownloadProgress) -> Path:
        """Return a file of the mirror's folder after its content was compared with the checksum."""
        path = self.folder / name
        if not path.is_file():
            raise InputError(f"{path} must exist, since {CHECKSUMS} lists it; complete the mirror")
        found = file_digest(path)
        if found != sha256:
            raise InputError(
                f"{path} must have sha256 {sha256} as {CHECKSUMS} says, found {found}; "
                f"copy the file again, or renew {CHECKSUMS} if it was changed on purpose"
            )
        size = file_status(path)[0]
        progress.update(name, size, size)
        return path

    def unlisted(self, listed: Mapping[str, str]) -> list[str]:
        """Return the names of corpus files that lie in the folder without a checksum."""
        names = (path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file())
        return sorted(name for name in names if split_of(name) and name not in listed)

    def close(self) -> None:
        """Nothing to release."""


class HttpTransport:
    """A mirror at a URL: its files are fetched into a folder of this machine."""

    def __init__(self, url: str, *, timeout_seconds: float, retries: int) -> None:
        from storage.sources.http.client import HttpMirror  # noqa: PLC0415 - httpx: 0.14 s that no folder needs

        self._mirror = HttpMirror(url, timeout_seconds=timeout_seconds, retries=retries)

    def read(self, name: str, limit: int) -> bytes:
        """Return a small file."""
        return self._mirror.read(name, limit)

    def fetch(self, name: str, sha256: str, folder: Path, progress: DownloadProgress) -> Path:
        """Bring the file into `folder`, continuing what an earlier attempt left there."""
        self._mirror.fetch(name, sha256, folder / name, progress)
        return folder / name

    def unlisted(self, listed: Mapping[str, str]) -> list[str]:
        """Return nothing: what a server has besides the list cannot be known."""
        return []

    def close(self) -> None:
        """Close all connections."""
        self._mirror.close()
