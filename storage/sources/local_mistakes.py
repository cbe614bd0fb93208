"""What people write where files of this machine are wanted, and what each of them should do instead."""

import glob
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from storage.errors import InputError
from storage.sources.readers.registry import known_suffixes

ADDRESS = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]*):/+")
"""Also with one slash: what is left of `s3://bucket` where a path was cleaned."""
INSTEAD = {
    "file": "write the path alone",
    "http": "a mirror is read from there with download.source.kind=mirror and download.source.url; fetch a single "
    "file first, with curl -LO",
    "s3": "bring the files here first, with aws s3 sync ADDRESS FOLDER, and name the folder",
    "gs": "bring the files here first, with gcloud storage cp -r ADDRESS FOLDER, and name the folder",
    "hf": "bring the files here first, with hf download --repo-type dataset NAME --local-dir FOLDER, and name the "
    "folder",
}
INSTEAD["https"] = INSTEAD["http"]
OTHER_SCHEME = "bring the files here first, and name their folder"


def is_address(pattern: str) -> bool:
    """Tell whether this is no path but an address of something elsewhere."""
    match = ADDRESS.match(pattern)
    return match is not None and len(match[1]) > 1 and not os.path.lexists(pattern)


def not_an_address(pattern: str) -> InputError:
    """Return the error about an address. It does not repeat it: there may be a password inside."""
    match = ADDRESS.match(pattern)
    scheme = match[1].lower() if match else ""
    return InputError(
        f"`patterns` must be files and folders of this machine, found an address that begins with {scheme}://; "
        f"{INSTEAD.get(scheme, OTHER_SCHEME)} (`pile plugins source` lists what can be read from elsewhere)"
    )


def nothing_found(pattern: str, absolute: str) -> InputError:
    """Return the error that a pattern matches nothing at all."""
    hints = []
    if "$" in pattern:
        hints.append(
            f"variables are not replaced, write what {pattern[pattern.index('$') :].split('/')[0]} stands for"
        )
    if pattern.startswith("~") and os.path.expanduser(pattern) == pattern:
        hints.append(f"there is no user {pattern.split('/')[0][1:]!r}")
    if "[" in pattern and (escaped := _with_plain_brackets(pattern)):
        hints.append(f"[...] stands for one of its characters, brackets themselves are written {escaped!r}")
    if not hints and not os.path.isabs(os.path.expanduser(pattern)):
        hints.append(f"relative paths begin in {os.getcwd()}")
    if "*" in pattern and "**" not in pattern:
        hints.append("** reaches into folders")
    if "*" not in pattern and "$" not in pattern and (folder := _first_missing(absolute)):
        hints.append(f"{folder} does not exist")
    return InputError(f"every entry of `patterns` must match a file, {pattern!r} matches none; {'; '.join(hints)}")


def nothing_readable(pattern: str, left_out: Mapping[str, Sequence[str]]) -> InputError:
    """Return the error that the folders of a pattern hold nothing that can be read."""
    must = f"a folder in `patterns` must hold a file that can be read, {pattern!r} holds none"
    known = f"known endings are {known_suffixes()}"
    if not left_out:
        return InputError(f"{must}: it is empty; put files there ({known}), or name another folder")
    said = "; ".join(f"{len(paths)} {why} ({_endings(paths)})" for why, paths in left_out.items())
    return InputError(f"{must} but {said}; {known}")


def leads_nowhere(path: str) -> InputError:
    """Return the error about what is neither a file nor a folder."""
    if os.path.islink(path):
        return InputError(
            f"{path} is a link to {os.readlink(path)}, which does not exist or is out of reach; mend or remove it"
        )
    return InputError(f"source files must be files, found {path}, which is a pipe, socket or device; name others")


def unknown_kind(path: str) -> InputError:
    """Return the error about a file that no reader takes."""
    return InputError(
        f"source files must end in {known_suffixes()}, found {path}; rename it if it is one of "
        f"them, narrow the pattern, or name its folder, of which the readable files are taken"
    )


def closed_folder(path: str) -> InputError:
    """Return the error about a folder that we may not look into."""
    return InputError(
        f"folders of source files must be readable, {path} is closed to this user; open it (chmod u+rx)"
    )


def closed_file(path: str) -> InputError:
    """Return the error about a file that we may not read."""
    return InputError(f"source files must be readable, {path} is closed to this user; open it (chmod u+r)")


def _with_plain_brackets(pattern: str) -> str:
    """Return the pattern with brackets that stand for themselves, if that matches something."""
    escaped = pattern.replace("[", "[[]")
    return escaped if glob.glob(os.path.abspath(os.path.expanduser(escaped)), recursive=True) else ""


def _first_missing(absolute: str) -> str:
    """Return the first folder on the way to a path that is not there, '' if only the path itself is not."""
    path, missing = os.path.dirname(absolute), ""
    while not os.path.lexists(path):
        path, missing = os.path.dirname(path), path
    return missing


def _endings(paths: Sequence[str]) -> str:
    counts = Counter(os.path.splitext(path)[1] or os.path.basename(path) for path in paths)
    shown = ", ".join(f"{count} {ending!r}" for ending, count in counts.most_common(5))
    return f"{shown}, ..." if len(counts) > 5 else shown
