"""Where everything lies in a store: the paths of docs/format.md, each written once."""

import re

from storage.errors import InputError

ARTIFACTS, RUNS, PINS, LEASES, LOGS, CANCELS = "artifacts", "runs", "pins", "leases", "logs", "cancels"
"""The folders of a store."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
"""What a stage, part, pin or run may be called: one path component on every file system."""


def artifact_folder(stage: str, key: str) -> str:
    """Return the folder of an artifact."""
    return f"{ARTIFACTS}/{checked_name(stage)}/{checked_name(key)}"


def manifest_path(folder: str) -> str:
    """Return the path of the manifest in the folder of an artifact."""
    return f"{folder}/manifest.json"


def is_manifest(path: str) -> bool:
    """Tell whether a path is that of a manifest."""
    return path == manifest_path(path.rpartition("/")[0])


def attempt_path(folder: str) -> str:
    """Return the path of the record of the attempt under way in the folder of an artifact."""
    return f"{folder}/attempt.json"


def parts_folder(folder: str) -> str:
    """Return the folder of the records of finished parts in the folder of an artifact."""
    return f"{folder}/parts"


def is_part(path: str, folder: str) -> bool:
    """Tell whether a path is that of a part's record of the artifact in `folder`."""
    return path.startswith(f"{parts_folder(folder)}/")


def record_path(folder: str, name: str) -> str:
    """Return the path of a record by its name, which is checked. Raises: InputError."""
    return f"{folder}/{checked_name(name)}.json"


def checked_name(name: str) -> str:
    """Return `name` if it is a single safe path component. Raises: InputError."""
    if not NAME.fullmatch(name):
        raise InputError(
            f"a name in the store must consist of letters, digits, '.', '_' and '-' and not begin with a mark, "
            f"found {name!r}"
        )
    return name


def log_path(run_id: str, number: int) -> str:
    """Return the path of a piece of the log of a run; pieces are numbered from 0."""
    return f"{LOGS}/{checked_name(run_id)}/{number:05d}.log"
