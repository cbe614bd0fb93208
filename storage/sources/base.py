"""What every source gives: local files whose content was checked."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from storage.errors import Fault


@dataclass(frozen=True)
class SourceFile:
    """A local file whose content was checked, as it was when it was checked."""

    name: str
    """Name in its mirror, or path below the folder that all local files share; part of document ids."""
    path: Path
    sha256: str
    status: tuple[int, int]
    """Size and modification time (ns) when the checksum was computed."""
    text_bytes: int = 0
    """Uncompressed size, once it was measured."""

    def check_unchanged(self) -> None:
        """Raise Fault if the file is no longer the one whose checksum is known."""
        if file_status(self.path) != self.status:
            raise Fault(
                f"{self.path} must not change while it is read, but its size or time did; run again once it is "
                f"complete"
            )


def local_file(name: str, path: Path, sha256: str) -> SourceFile:
    """Describe a file whose checksum was compared just now."""
    return SourceFile(name, path, sha256, file_status(path))


_digests: dict[tuple[Path, tuple[int, int]], str] = {}
"""SHA-256 by path, size and time: a run asks twice, for the key and for the work."""


def hashed_file(name: str, path: Path) -> SourceFile:
    """Describe a local file, hashed now or when it was last seen unchanged. Raises: Fault."""
    status = file_status(path)
    if (path, status) not in _digests:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if file_status(path) != status:
            raise Fault(f"{path} must not change while it is read; run again once it is complete")
        _digests[path, status] = digest
    return SourceFile(name, path, _digests[path, status], status)


def file_status(path: Path) -> tuple[int, int]:
    """Return size and modification time (ns), which tell a changed file from an unchanged one."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns
