"""Garbage collection: from the roots (pins, recent runs, work under way) to what may be deleted.

An artifact that a root needs is kept with everything it was made from. Where a record that might protect something
cannot be read, nothing is deleted: the error says which one.
"""

import itertools
import logging
import shutil
import stat
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from storage.artifacts.layout import ARTIFACTS, LEASES, RUNS, attempt_path, is_part, manifest_path, parts_folder
from storage.artifacts.lease import TAKEOVER, holder_is_gone
from storage.artifacts.records import LeaseRecord, Part, Run, decode_record
from storage.artifacts.store import Store
from storage.backends.base import WRITES
from storage.errors import CorruptRecordError, InputError

log = logging.getLogger(__name__)

THREADS = 8

Ref = tuple[str, str]
"""Stage and key of an artifact."""

Kind = Literal["artifact", "file", "lease", "write", "local"]

_Fields = tuple[str, int, str, Kind, float]
"""The fields of `Garbage`, all but the time of the plan."""


@dataclass(frozen=True)
class Garbage:
    """Something that may be deleted, and why."""

    path: str
    """Relative to the store; absolute for what lies on this machine only."""
    bytes: int
    reason: str
    kind: Kind
    changed: float
    """When it was changed last (Unix time): `collect` spares what is found changed again."""
    planned: float
    """When the plan was made: `collect` spares what a run has used since."""


@dataclass(frozen=True)
class _Use:
    """What is needed, and by whom."""

    reachable: frozenset[Ref]
    leased: frozenset[Ref]
    resumable: frozenset[str]
    """Stages that a kept run has not finished: it does not say under which key, so all of theirs are kept."""


def plan_garbage(store: Store, keep_runs: int = 3, min_age_seconds: float = 86400) -> list[Garbage]:
    """Return what nothing needs: no pin, none of the newest `keep_runs` runs of a recipe, no run at work.

    Finished artifacts go whatever their age; what a killed or waiting attempt left goes when it has not been
    touched for `min_age_seconds`. Run records stay: they are small, and they are the history.

    Raises: CorruptRecordError if a pin, a run or the manifest of a kept artifact cannot be read.
    """
    if keep_runs < 0 or min_age_seconds < 0:
        raise InputError(f"runs to keep and age must not be negative, found {keep_runs} and {min_age_seconds}")
    planned = time.time()
    oldest = planned - min_age_seconds
    use = _in_use(store, keep_runs, oldest)
    found = itertools.chain(
        _artifact_garbage(store, use, oldest),
        _stale_leases(store, oldest),
        _unfinished_writes(store, oldest),
        _local_garbage(store, use.leased, oldest),
    )
    return [Garbage(*fields, planned=planned) for fields in found]


def collect(store: Store, garbage: Iterable[Garbage]) -> int:
    """Delete what a plan names and return how many bytes that were; what came into use since is left out.

    Of an artifact the manifest goes first: one that is half deleted is unfinished, never damaged.
    """
    garbage = list(garbage)
    use = _in_use(store, 0, min((item.planned for item in garbage), default=0.0))
    freed = 0
    for item in garbage:
        if _delete(store, item, use):
            freed += item.bytes
        else:
            log.info("leaving %s: it has come into use", item.path)
    return freed


def _delete(store: Store, item: Garbage, use: _Use) -> bool:
    ref = tuple(item.path.split("/")[1:3])
    if item.kind == "artifact":
        files = [*store.backend.list(item.path)]
        if ref in use.reachable or ref in use.leased or any(changed > item.changed for *_, changed in files):
            return False
        _delete_artifact(store, item.path, [path for path, *_ in files])
    elif item.kind == "file":
        if ref in use.leased:
            return False
        store.backend.delete(item.path)
    elif item.kind == "lease":
        record = _lease(store, item.path)
        if isinstance(record, LeaseRecord) and not holder_is_gone(record):
            return False
        store.backend.delete(item.path)
    elif item.kind == "write":
        store.backend.abandon(item.path)
    else:
        return _delete_local(Path(item.path), item.changed)
    return True


def _delete_artifact(store: Store, folder: str, paths: list[str]) -> None:
    store.backend.delete(manifest_path(folder))
    records = [path for path in paths if is_part(path, folder)]
    with ThreadPoolExecutor(THREADS) as pool:
        for group in (records, sorted({*paths} - {*records})):
            for _ in pool.map(store.backend.delete, group):
                pass  # the result is waited for, so that an error is raised


def _delete_local(path: Path, changed: float) -> bool:
    if not path.exists():
        return True
    if _size_and_last_use(path)[1] > changed:
        return False
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return True


def _in_use(store: Store, keep_runs: int, oldest: float) -> _Use:
    leased = _live_leases(store)
    runs = _runs(store)
    kept = _kept_runs(runs, keep_runs, oldest, set(leased.values()))
    roots = {(pin.stage, pin.key) for pin in store.pins()} | {*leased}
    roots |= {(stage.stage, stage.key) for run in kept for stage in run.stages if stage.key}
    if unknown := {*leased.values()} - {run.run_id for run, _ in runs}:
        log.warning(
            "keeping all finished artifacts: any may be an input of %s, which left no record", sorted(unknown)
        )
        roots |= {(manifest.stage, manifest.key) for manifest in store.manifests()}
    resumable = {stage.stage for run in kept for stage in run.stages if not stage.key}
    return _Use(_with_ancestors(store, roots), frozenset(leased), frozenset(resumable))


def _kept_runs(runs: list[tuple[Run, float]], keep: int, oldest: float, working: set[str]) -> list[Run]:
    by_recipe = defaultdict(list)
    for run, _ in sorted(runs, key=lambda found: found[0].started, reverse=True):
        by_recipe[run.recipe_name].append(run)
    kept = [run for of_recipe in by_recipe.values() for run in of_recipe[:keep]]
    # A run holds no lease between two stages, but it has just written down the one that it finished.
    at_work = [
        run for run, changed in runs if run.run_id in working or (run.state == "running" and changed > oldest)
    ]
    return kept + at_work


def _with_ancestors(store: Store, roots: Iterable[Ref]) -> frozenset[Ref]:
    found: set[Ref] = set()
    left = [*roots]
    while left:
        ref = left.pop()
        if ref not in found:
            found.add(ref)
            manifest = store.manifest(*ref)
            if manifest is not None:
                left += [(upstream.stage, upstream.key) for upstream in manifest.inputs.values()]
    return frozenset(found)


def _runs(store: Store) -> list[tuple[Run, float]]:
    runs = []
    for path, _, changed in store.backend.list(RUNS):
        runs.append((decode_record(Run, store.backend.read(path), f"{store.url}/{path}"), changed))
    return runs


def _live_leases(store: Store) -> dict[Ref, str]:
    """Return artifact -> run for all leases but those whose holder is known to be gone."""
    live = {}
    for path in store.paths(LEASES):
        record = _lease(store, path)
        if record is not None and not (isinstance(record, LeaseRecord) and holder_is_gone(record)):
            _, stage, name = path.split("/")
            run_id = record.run_id if isinstance(record, LeaseRecord) else "a lease that cannot be read"
            live[stage, name.removesuffix(TAKEOVER).removesuffix(".json")] = run_id
    return live


def _lease(store: Store, path: str) -> LeaseRecord | CorruptRecordError | None:
    try:
        return decode_record(LeaseRecord, store.backend.read(path), path)
    except FileNotFoundError:
        return None
    except CorruptRecordError as error:
        return error


def _artifact_garbage(store: Store, use: _Use, oldest: float) -> Iterator[_Fields]:
    listing = [found for found in store.backend.list(ARTIFACTS) if found[0].count("/") > 2]
    for ref, members in itertools.groupby(listing, lambda found: tuple(found[0].split("/")[1:3])):
        files = {path: (size, changed) for path, size, changed in members}
        folder = "/".join((ARTIFACTS, *ref))
        newest = max(changed for _, changed in files.values())
        finished = manifest_path(folder) in files
        may_go_on = not finished and (newest > oldest or ref[0] in use.resumable)
        if ref in use.leased:
            continue
        if ref not in use.reachable and not may_go_on:
            reason = "no pin and no kept run needs it" if finished else "unfinished, and nobody works on it"
            yield folder, sum(size for size, _ in files.values()), reason, "artifact", newest
            continue
        for path in _unreferenced(
            store, folder, [path for path, (_, changed) in files.items() if changed < oldest]
        ):
            yield path, files[path][0], "no record names it", "file", files[path][1]


def _unreferenced(store: Store, folder: str, candidates: list[str]) -> list[str]:
    _, stage, key = folder.split("/")
    manifest = store.manifest(stage, key)
    named = {f"{folder}/{file.path}" for file in (*manifest.files, *manifest.reports)} if manifest else set()
    named |= {manifest_path(folder), attempt_path(folder)}
    left = [path for path in candidates if path not in named and not is_part(path, folder)]
    if not left:
        return []
    for path in store.paths(parts_folder(folder)):
        try:
            part = decode_record(Part, store.backend.read(path), f"{store.url}/{path}")
        except FileNotFoundError:
            continue
        except CorruptRecordError as error:
            log.warning("leaving all files of %s: %s", folder, error)
            return []
        named |= {f"{folder}/{file.path}" for file in part.files}
    return [path for path in left if path not in named]


def _stale_leases(store: Store, oldest: float) -> Iterator[_Fields]:
    for path, size, changed in store.backend.list(LEASES):
        record = _lease(store, path)
        if isinstance(record, LeaseRecord) and holder_is_gone(record):
            yield path, size, f"run {record.run_id} has ended without releasing it", "lease", changed
        elif isinstance(record, CorruptRecordError) and changed < oldest:
            yield path, size, "it cannot be read, and nobody renews it", "lease", changed


def _unfinished_writes(store: Store, oldest: float) -> Iterator[_Fields]:
    for name, size, started in store.backend.unfinished():
        if started < oldest:
            yield name, size, "a write that was cut off", "write", started


def _local_garbage(store: Store, leased: frozenset[Ref], oldest: float) -> Iterator[_Fields]:
    root, fetched = store.scratch_root(), store.fetched_root()
    at_work = {root / f"{stage}-{key}" for stage, key in leased}
    places = [*_children(root), *_children(fetched)]
    for path in places:
        if path not in at_work and path not in (fetched, root / WRITES):
            size, last_use = _size_and_last_use(path)
            if last_use < oldest:
                reason = "a copy of a remote file" if path.parent == fetched else "work that nobody went on with"
                yield str(path), size, reason, "local", last_use


def _children(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _size_and_last_use(path: Path) -> tuple[int, float]:
    size, last_use = 0, 0.0
    try:
        for member in (path, *path.rglob("*")):
            status = member.lstat()
            is_file = stat.S_ISREG(status.st_mode)
            size += status.st_size if is_file else 0
            last_use = max(last_use, status.st_mtime, status.st_atime if is_file else 0.0)
    except FileNotFoundError:  # somebody is at work in it
        return size, time.time()
    return size, last_use
