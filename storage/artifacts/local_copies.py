"""Local copies of remote files: fetched once per machine, named by their content.

They lie in one folder that garbage collection empties of what was not wanted lately; nothing is lost by that.
"""

import os
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from storage.artifacts.records import StoredFile
from storage.canonical import fingerprint


def fetched_copy(root: Path, file: StoredFile, fetch: Callable[[Path], None]) -> Path:
    """Return the copy of a file below `root`; `fetch` is called to make it if it is not there in full."""
    copy = root / file.sha256
    try:
        status = copy.stat()
        if status.st_size == file.bytes:
            # When it was last wanted, for garbage collection; many disks do not keep this themselves.
            os.utime(copy, ns=(time.time_ns(), status.st_mtime_ns))
            return copy
    except FileNotFoundError:
        copy.parent.mkdir(parents=True, exist_ok=True)
    partial = copy.with_name(f"{copy.name}.{uuid.uuid4().hex}")
    try:
        fetch(partial)
        os.replace(partial, copy)
    finally:
        partial.unlink(missing_ok=True)
    return copy


def fetched_folder(root: Path, copies: Mapping[str, Path]) -> Path:
    """Return a folder of links (relative path -> copy), for readers that want files under their proper names."""
    names = sorted(copies.items())
    folder = root / f"folder-{fingerprint([[name, copy.name] for name, copy in names])}"
    if not folder.exists():
        building = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}")
        for name, copy in names:
            link = building / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(copy)
        try:
            building.rename(folder)
        except OSError:
            shutil.rmtree(building)
            if not folder.exists():  # then it was not another process that was faster
                raise
    return folder
