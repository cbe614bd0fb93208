"""What tests put into a store and read from it: records, attempts that were killed, old and damaged files."""

import hashlib
import json
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from storage.artifacts.records import LeaseRecord, Run, RunStage, StageState, encode_record
from storage.artifacts.store import Artifact, Store
from storage.artifacts.upkeep.gc import Garbage
from storage.artifacts.writer import ArtifactWriter

# Fixtures that are functions.
MakeArtifact = Callable[..., Artifact]
Publish = Callable[..., Artifact]
MakeFile = Callable[..., Path]

STAGE, KEY = "filter", "0123456789abcdef"
"""What the fixture `writer` writes."""

DAY = 86400.0

NEWER = 99
"""The number of what `newer` makes."""


def key(number: int) -> str:
    return f"{number:016x}"


def folder(stage: str, number: int) -> str:
    return f"artifacts/{stage}/{key(number)}"


def run(run_id: str, *stages: tuple[str, int], state: str = "done", recipe: str = "demo") -> Run:
    """The record of a run that named these artifacts; number -1: begun, and not known under which key."""
    return Run(
        run_id=run_id,
        recipe_name=recipe,
        recipe={},
        target="publish",
        state=state,
        stages=tuple(_run_stage(stage, number) for stage, number in stages),
        host="h",
        started=run_id,
    )


def _run_stage(stage: str, number: int) -> RunStage:
    state: StageState = "running" if number < 0 else "done"
    return RunStage(stage=stage, key="" if number < 0 else key(number), state=state)


def newer(store: Store, make_artifact: MakeArtifact, *stages: str) -> None:
    """Make the newest artifact of each stage, which gc keeps: the others are then replaced."""
    time.sleep(0.002)  # times of records are milliseconds
    for stage in stages:
        make_artifact(store, stage, key(NEWER))


def lease_of_another_machine(store: Store, stage: str, number: int, run_id: str, *, expired: bool = False) -> str:
    path = f"leases/{stage}/{key(number)}.json"
    expires = time.time() + (-1e6 if expired else 1e6)
    record = LeaseRecord(
        holder="h", run_id=run_id, host="elsewhere", process_id=1, process_start="1", renewals=1, expires=expires
    )
    store.backend.write(path, encode_record(record))
    return path


def unfinished(store: Store, tmp_path: Path, stage: str, number: int) -> ArtifactWriter:
    """An attempt that was killed after its first part."""
    writer = ArtifactWriter(store, stage, key(number))
    local = tmp_path / f"{uuid.uuid4().hex}.bin"
    local.write_bytes(b"first part")
    writer.commit("train-00000", {"documents": local})
    return writer


def age(store: Store, below: str = "", seconds: float = 10 * DAY) -> None:
    """Make files of a local store look as if they had not been touched for ten days."""
    then = time.time() - seconds
    root = Path(store.url, below)
    for path in (root, *root.rglob("*")):
        os.utime(path, (then, then), follow_symlinks=False)


def everything(store: Store) -> dict[str, bytes]:
    return {path: store.backend.read(path) for path in store.paths("")}


def paths(garbage: list[Garbage]) -> list[str]:
    return [item.path for item in garbage]


def contents(artifact: Artifact) -> dict[str, bytes]:
    """Return part -> content of an artifact whose parts have one file."""
    return {file.part: artifact.open(file).read_bytes() for file in artifact.manifest.files}


def independent_digest(contents: dict[str, bytes]) -> str:
    """Return the content digest of an artifact whose parts have one file, of `documents`."""
    entries = [[part, "documents", hashlib.sha256(data).hexdigest(), len(data)] for part, data in contents.items()]
    return hashlib.sha256(json.dumps(sorted(entries), separators=(",", ":")).encode()).hexdigest()


def damage(store: Store, path: str, how: str) -> None:
    data = store.backend.read(path)
    if how == "missing":
        store.backend.delete(path)
    elif how == "cut":
        store.backend.write(path, data[:-1])
    else:
        store.backend.write(path, data[:-1] + bytes([data[-1] ^ 1]))
