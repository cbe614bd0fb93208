"""Which files of this machine are meant by names, folders and patterns, and what of a folder is left out."""

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from storage.errors import InputError
from storage.sources.layout import CHECKSUMS
from storage.sources.local_mistakes import (
    closed_folder,
    is_address,
    leads_nowhere,
    not_an_address,
    nothing_found,
    nothing_readable,
    unknown_kind,
)
from storage.sources.readers.registry import is_readable

OTHER_KIND = "of other kinds"
EMPTY = "empty"
HIDDEN = "hidden"
LISTING = "the list of a mirror, whose splits a source of kind mirror takes"
TWICE = "reached twice, by links"
NO_FILE = "neither file nor folder"
SHOWN = 5
"""Names that are told of each kind that is left out."""

LeftOut = dict[str, list[str]]
"""Paths in folders by why they are left out; of hidden and repeated folders the folder alone."""


@dataclass(frozen=True)
class LocalFiles:
    """The files that are meant, and why others of their folders are not."""

    root: str
    """The folder that names begin below. It follows from the patterns, not from which files there are."""
    files: dict[str, Path] = field(default_factory=dict)
    """By name, sorted."""
    left_out: LeftOut = field(default_factory=dict)

    def describe_left_out(self) -> str:
        """Return how many are left out, why, and the first names; '' if none is."""
        said = []
        for why, paths in self.left_out.items():
            names = ", ".join(repr(os.path.relpath(path, self.root))[1:-1] for path in sorted(paths)[:SHOWN])
            said.append(f"{len(paths)} {why} ({names}{', ...' if len(paths) > SHOWN else ''})")
        return ", ".join(said)


def find_files(patterns: Sequence[str]) -> LocalFiles:
    """Return the local files that any pattern means.

    A pattern is a file, a folder, or matches some: `data/**/*.jsonl`. What exists under the very name is taken,
    brackets and all. A folder means the readable files in it and its folders, but for hidden and empty ones. A
    file that is reached in several ways is taken once, under the first of its names.

    Raises: InputError for a pattern that means no file, for an address, for a folder that cannot be looked into,
    and for a file of an unknown kind, unless it is only one of a folder's.
    """
    found: set[str] = set()
    roots: set[str] = set()
    left_out: LeftOut = {}
    for pattern in patterns:
        absolute = _absolute(pattern)
        is_name = os.path.lexists(absolute)
        roots.add(_root(absolute, is_name=is_name))
        matches = [absolute] if is_name else sorted(glob.glob(absolute, recursive=True))
        if not matches:
            raise nothing_found(pattern, absolute)
        here: LeftOut = {}
        files = [file for path in matches for file in _files_of(path, here)]
        if not files:
            raise nothing_readable(pattern, here)
        found.update(files)
        for why, paths in here.items():
            left_out.setdefault(why, []).extend(paths)
    return _named(found, os.path.commonpath(roots), left_out)


def _absolute(pattern: str) -> str:
    """Return the path of a pattern, without a last `**`, which means what its folder means."""
    if is_address(pattern):
        raise not_an_address(pattern)
    if not pattern.strip():
        raise InputError(
            "every entry of `patterns` must name a file or folder, found an empty one; write . for here"
        )
    absolute = os.path.abspath(os.path.expanduser(pattern))
    while os.path.basename(absolute) == "**" and not os.path.lexists(absolute):
        absolute = os.path.dirname(absolute)
    return absolute


def _root(absolute: str, *, is_name: bool) -> str:
    if is_name:
        return absolute if os.path.isdir(absolute) else os.path.dirname(absolute)
    while glob.has_magic(absolute):
        absolute = os.path.dirname(absolute)
    return absolute


def _files_of(path: str, left_out: LeftOut) -> Iterator[str]:
    if os.path.isdir(path):
        yield from _files_below(path, left_out)
    elif os.path.isfile(path):
        if not is_readable(path):
            raise unknown_kind(path)
        yield path
    else:
        raise leads_nowhere(path)


def _files_below(folder: str, left_out: LeftOut) -> Iterator[str]:
    """Yield the readable files of a folder and its folders, each of which is visited once, links or not."""
    visited: set[str] = set()
    folders = [folder]
    while folders:
        path = folders.pop()
        real = os.path.realpath(path)
        if real in visited:
            left_out.setdefault(TWICE, []).append(path)
            continue
        visited.add(real)
        try:
            names = sorted(os.listdir(path))
        except PermissionError:
            raise closed_folder(path) from None
        for name in names:
            member = os.path.join(path, name)
            if os.path.isdir(member) and not name.startswith("."):
                folders.append(member)
            elif why := _why_left_out(member):
                left_out.setdefault(why, []).append(member)
            else:
                yield member


def _why_left_out(path: str) -> str:
    """Return why a file of a folder is not taken, '' if it is."""
    name = os.path.basename(path)
    if name.startswith("."):
        return HIDDEN
    if name == CHECKSUMS:
        return LISTING
    if not os.path.isfile(path):
        if os.path.islink(path) and is_readable(name):
            raise leads_nowhere(path)
        return NO_FILE
    if not is_readable(name):
        return OTHER_KIND
    return "" if os.path.getsize(path) else EMPTY


def _named(found: set[str], root: str, left_out: LeftOut) -> LocalFiles:
    """Return the files by name, each once."""
    first: dict[str, str] = {}
    for path in sorted(found):
        if not path.isprintable():
            raise InputError(f"names of source files must be printable text, found {path!r}; rename it")
        if first.setdefault(os.path.realpath(path), path) != path:
            left_out.setdefault(TWICE, []).append(path)
    taken = set(first.values())
    return LocalFiles(
        root,
        dict(sorted((Path(path).relative_to(root).as_posix(), Path(path)) for path in taken)),
        {
            why: kept
            for why, paths in left_out.items()
            if (kept := [path for path in dict.fromkeys(paths) if path not in taken])
        },
    )
