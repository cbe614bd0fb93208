"""The layout of The Pile's mirrors: train/NN.jsonl.zst, val.jsonl.zst, test.jsonl.zst and SHA256SUMS.txt."""

import re
from pathlib import PurePosixPath

from storage.errors import InputError
from storage.formats.documents import SPLITS
from storage.sources.readers.registry import is_readable

CHECKSUMS = "SHA256SUMS.txt"
CHECKSUM_LINE = re.compile(r"(?P<sha256>[0-9a-fA-F]{64}) [ *](?P<name>.+)")


def read_checksums(data: bytes, origin: str) -> dict[str, str]:
    """Parse the output of `sha256sum`. Raises: InputError, also for names that leave the folder."""
    found: dict[str, str] = {}
    for number, line in enumerate(data.decode(errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        match = CHECKSUM_LINE.fullmatch(line)
        if match is None:
            raise InputError(
                f"{origin} must hold lines `<sha256>  <name>` as sha256sum writes them, found {line[:100]!r} in "
                f"line {number}"
            )
        name = match["name"].removeprefix("./")
        if not is_safe_name(name):
            raise InputError(
                f"{origin} must name files below its own folder, found {name[:200]!r} in line {number}"
            )
        if found.setdefault(name, match["sha256"].lower()) != match["sha256"].lower():
            raise InputError(f"{origin} must give one checksum per file, found two for {name!r}")
    return found


def is_safe_name(name: str) -> bool:
    """Tell whether a name from outside stays below the folder that it is joined to."""
    parts = name.split("/")
    return name.isprintable() and "\\" not in name and not any(part in ("", ".", "..") for part in parts)


def split_of(name: str) -> str:
    """Return the split that a mirror's file belongs to, '' if it is not part of the corpus."""
    split = PurePosixPath(name).parts[0].partition(".")[0]
    return split if split in SPLITS and is_readable(name) else ""
