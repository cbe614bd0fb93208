"""Where text comes from: local files, or a mirror in The Pile's layout (a folder or a URL).

train/NN.jsonl.zst   val.jsonl.zst   test.jsonl.zst   SHA256SUMS.txt

A source file is known by its name and its SHA-256, never by its place: moving a folder or changing to
another mirror of the same files changes no result.
"""

import fnmatch
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Protocol

from storage.errors import InputError
from storage.formats.documents import SPLITS
from storage.sources.base import SourceFile, hashed_file
from storage.sources.http.client import HttpMirror
from storage.sources.http.requests import MissingFile
from storage.sources.readers.registry import FORMATS

log = logging.getLogger(__name__)

CHECKSUMS = "SHA256SUMS.txt"
CHECKSUMS_BYTES = 16 << 20
"""More than 150,000 files: a larger list is something else."""
CHECKSUM_LINE = re.compile(r"(?P<sha256>[0-9a-fA-F]{64}) [ *](?P<name>.+)")


class Mirror(Protocol):
    """A place that holds files in The Pile's layout."""

    url: str

    def read(self, name: str, limit: int) -> bytes:
        """Return a small file. Raises: MissingFile, InputError, Fault."""

    def close(self) -> None:
        """Release what the mirror holds."""


class FolderMirror:
    """A mirror in a local folder: its files are checked where they lie."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder).expanduser().absolute()
        self.url = str(self.folder)
        if not self.folder.is_dir():
            raise InputError(f"the mirror must be a folder or an http(s) URL, found no folder {self.folder}")

    def read(self, name: str, limit: int) -> bytes:
        """Return a small file."""
        path = self.folder / name
        if not path.is_file():
            raise MissingFile(f"{path} must exist")
        if path.stat().st_size > limit:
            raise InputError(f"{path} must have at most {limit} bytes, found {path.stat().st_size}")
        return path.read_bytes()

    def close(self) -> None:
        """Nothing to release."""

    def check(self, name: str, sha256: str) -> SourceFile:
        """Return a file of the folder after its content was compared with the checksum."""
        path = self.folder / name
        if not path.is_file():
            raise InputError(f"{path} must exist, since {CHECKSUMS} lists it; complete the mirror")
        file = hashed_file(name, path)
        if file.sha256 != sha256:
            raise InputError(
                f"{path} must have sha256 {sha256} as {CHECKSUMS} says, found {file.sha256}; "
                f"copy the file again, or renew {CHECKSUMS} if it was changed on purpose"
            )
        return file

    def unlisted(self, listed: Mapping[str, str]) -> list[str]:
        """Return the names of corpus files that lie in the folder without a checksum."""
        names = (path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file())
        return sorted(name for name in names if split_of(name) and name not in listed)


def open_mirror(url: str, *, timeout_seconds: float, retries: int) -> FolderMirror | HttpMirror:
    """Open a mirror given as an http(s) URL or a local folder."""
    if "://" in url:
        return HttpMirror(url, timeout_seconds=timeout_seconds, retries=retries)
    return FolderMirror(url)


def list_mirror(mirror: Mirror, include: Sequence[str] = ("*",)) -> dict[str, str]:
    """Return name -> SHA-256 of the mirror's corpus files that match one of the patterns, sorted by name.

    Raises: InputError if there is no usable list of checksums, or nothing (or nothing for a pattern) in it.
    """
    place = f"{mirror.url}/{CHECKSUMS}"
    try:
        data = mirror.read(CHECKSUMS, CHECKSUMS_BYTES)
    except MissingFile as error:
        raise InputError(
            f"a mirror must hold {CHECKSUMS}, found none at {place}; make one in the mirror's folder with: "
            f"find train val.jsonl.zst test.jsonl.zst -type f | sort | xargs sha256sum > {CHECKSUMS}"
        ) from error
    listed = {name: sha256 for name, sha256 in read_checksums(data, place).items() if split_of(name)}
    if not listed:
        raise InputError(
            f"{place} must list files named train/*, val.* and test.* ({', '.join(FORMATS)}), found none"
        )
    for pattern in include:
        if not fnmatch.filter(listed, pattern):
            raise InputError(
                f"every pattern of `include` must match a file of the mirror, {pattern!r} matches none of "
                f"{len(listed)}, such as {next(iter(listed))!r}"
            )
    return {
        name: sha256
        for name, sha256 in sorted(listed.items())
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in include)
    }


def read_checksums(data: bytes, place: str) -> dict[str, str]:
    """Parse the output of `sha256sum`. Raises: InputError, also for names that leave the folder."""
    found: dict[str, str] = {}
    for number, line in enumerate(data.decode(errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        match = CHECKSUM_LINE.fullmatch(line)
        if match is None:
            raise InputError(
                f"{place} must hold lines `<sha256>  <name>` as sha256sum writes them, found {line[:100]!r} in "
                f"line {number}"
            )
        name = match["name"].removeprefix("./")
        if not is_safe_name(name):
            raise InputError(
                f"{place} must name files below its own folder, found {name[:200]!r} in line {number}"
            )
        if found.setdefault(name, match["sha256"].lower()) != match["sha256"].lower():
            raise InputError(f"{place} must give one checksum per file, found two for {name!r}")
    return found


def is_safe_name(name: str) -> bool:
    """Tell whether a name from outside stays below the folder that it is joined to."""
    parts = name.split("/")
    return name.isprintable() and "\\" not in name and not any(part in ("", ".", "..") for part in parts)


def split_of(name: str) -> str:
    """Return the split that a mirror's file belongs to, '' if it is not part of the corpus."""
    split = PurePosixPath(name).parts[0].partition(".")[0]
    return split if split in SPLITS and name.endswith(FORMATS) else ""
