"""What the store needs from a place that keeps files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol


class StoreBackend(Protocol):
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

    def digest(self, path: str) -> tuple[int, str]:
        """Read the file piece by piece; return its bytes and SHA-256. Raises FileNotFoundError."""

    def list(self, folder: str) -> Iterator[tuple[str, int, float]]:
        """Yield (path, bytes, modification time) of every file below `folder`, sorted by path."""

    def delete(self, path: str) -> None:
        """Remove a file; no error if it is not there."""

    def local(self, path: str) -> Path | None:
        """Return where the file lies on this machine, None if it does not."""

    def unfinished(self) -> Iterator[tuple[str, int, float]]:
        """Yield (name, bytes, start time) of writes that are under way or were cut off by a crash."""

    def abandon(self, name: str) -> None:
        """Throw away what an unfinished write has left; no error if it is not there."""
