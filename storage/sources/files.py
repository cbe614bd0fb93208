"""Local files, found by patterns."""

import glob
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from storage.errors import InputError
from storage.sources.base import SourceFile, hashed_file
from storage.sources.readers.registry import FORMATS

HASH_THREADS = 8


def find_files(patterns: Sequence[str]) -> list[SourceFile]:
    """Return the local files that match any pattern, hashed, sorted by name.

    Raises: InputError for a pattern without files and for a file of an unknown format.
    """
    found: set[Path] = set()
    for pattern in patterns:
        place = os.path.abspath(os.path.expanduser(pattern))
        matches = (
            [Path(place)] if os.path.isfile(place) else [Path(path) for path in glob.glob(place, recursive=True)]
        )
        files = [path for path in matches if path.is_file()]
        if not files:
            raise _no_files(pattern, place, matches)
        found.update(files)
    for path in sorted(found):
        if not str(path).isprintable():
            raise InputError(f"names of source files must be printable text, found {str(path)!r}; rename it")
        if not path.name.endswith(FORMATS):
            raise InputError(f"source files must end in {', '.join(FORMATS)}, found {path}; narrow the pattern")
    common = os.path.commonpath([path.parent for path in found])
    names = {path.relative_to(common).as_posix(): path for path in found}
    with ThreadPoolExecutor(HASH_THREADS) as threads:
        return list(threads.map(hashed_file, sorted(names), (names[name] for name in sorted(names))))


def _no_files(pattern: str, place: str, matches: Sequence[Path]) -> InputError:
    must = f"every entry of `files` must match a file, {pattern!r} matches none"
    dangling = [path for path in {Path(place), *matches} if path.is_symlink() and not path.exists()]
    if dangling:
        return InputError(
            f"{must}: {dangling[0]} is a link to {os.readlink(dangling[0])}, which does not exist; mend it"
        )
    if matches:
        return InputError(f"{must} but a folder; to read a folder write {pattern.rstrip('/')}/**/*.jsonl.zst")
    return InputError(f"{must}; correct it, relative paths begin in {os.getcwd()}, and ** reaches into folders")
