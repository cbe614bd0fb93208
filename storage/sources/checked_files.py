"""Files of this machine whose content was checked, and that are noticed when they change."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from storage.errors import Fault

Status = tuple[int, int]
"""Size and modification time (ns), which tell a changed file from an unchanged one."""


@dataclass(frozen=True)
class SourceFile:
    """A file of a source as a worker gets it: what it is, and where it lay when it was checked.

    On another machine `path` leads nowhere, or to something else; `is_at_hand` tells.
    """

    name: str
    """Its name in the source; part of document ids."""
    sha256: str
    path: Path
    status: Status
    """Of the file at `path` when its checksum was compared."""
    text_bytes: int = 0
    """Length of the scale of offsets that its reader measured."""

    def is_at_hand(self) -> bool:
        """Tell whether the checked file lies on this machine, unchanged."""
        try:
            return file_status(self.path) == self.status
        except OSError:
            return False

    def check_unchanged(self) -> None:
        """Raise Fault if the file is no longer the one whose checksum is known."""
        if file_status(self.path) != self.status:
            raise Fault(
                f"{self.path} must not change while it is read, but its size or time did; run again once it is "
                f"complete"
            )


def file_status(path: Path) -> Status:
    """Return what tells a changed file from an unchanged one."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


_digests: dict[tuple[Path, Status], str] = {}
"""SHA-256 by path, size and time: a run asks twice, for the key and for the work."""


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, computed now or when it was last seen unchanged. Raises: Fault."""
    status = file_status(path)
    if (path, status) not in _digests:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if file_status(path) != status:
            raise Fault(f"{path} must not change while it is read; run again once it is complete")
        _digests[path, status] = digest
    return _digests[path, status]
