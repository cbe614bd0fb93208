"""Garbage collection: deletes what `storage.artifacts.upkeep.keeping` does not say must stay."""

import itertools
import logging
import shutil
import stat
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from storage.artifacts.layout import LEASES, attempt_path, is_part, manifest_path, parts_folder
from storage.artifacts.lease import holder_is_gone
from storage.artifacts.records import LeaseRecord, Part, decode_record
from storage.artifacts.store import Store
from storage.artifacts.upkeep.keeping import THREADS, Needs, Ref, find_needs, folder_of, holder_of, recipe_of
from storage.backends.base import WRITES
from storage.errors import CorruptRecordError, InputError

log = logging.getLogger(__name__)

DAY = 86400.0

Kind = Literal["artifact", "file", "lease", "write", "local"]


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
    recipe: str = ""
    """The recipe that a finished artifact was made by."""
    run_id: str = ""
    """The run that made it."""
    replaced_by: str = ""
    """The newest finished artifact (`stage/key`) of its recipe and stage, which stays."""


@dataclass(frozen=True)
class Kept:
    """An artifact that stays, and why."""

    artifact: str
    """`stage/key`."""
    bytes: int
    reason: str


def plan_garbage(store: Store, keep_runs: int = 3, min_age_seconds: float = DAY) -> list[Garbage]:
    """Return what may be deleted; see `survey`."""
    return survey(store, keep_runs, min_age_seconds)[0]


def survey(store: Store, keep_runs: int = 3, min_age_seconds: float = DAY) -> tuple[list[Garbage], list[Kept]]:
    """Return what nothing needs, and the artifacts that stay.

    What stays is told in `keeping`. Nothing goes that was changed less than `min_age_seconds` ago, finished or
    not. Run records stay: they are small, and they are the history.

    Raises: CorruptRecordError if a pin, a run or a manifest cannot be read: it might protect something.
    """
    if keep_runs < 0 or min_age_seconds < 0:
        raise InputError(f"runs to keep and age must not be negative, found {keep_runs} and {min_age_seconds}")
    planned = time.time()
    oldest = planned - min_age_seconds
    needs = find_needs(store, keep_runs, oldest)
    found = itertools.chain(
        _artifact_garbage(store, needs, oldest, planned),
        _stale_leases(store, oldest, planned),
        _unfinished_writes(store, oldest, planned),
        _local_garbage(store, needs.leased, oldest, planned),
    )
    kept = [
        Kept("/".join(ref), sum(size for size, _ in needs.files[ref].values()), reason)
        for ref, reason in needs.reasons.items()
        if ref in needs.files
    ]
    return list(found), kept


def collect(store: Store, garbage: Iterable[Garbage]) -> int:
    """Delete what a plan names and return how many bytes that were; what came into use since is left out.

    Of an artifact the manifest goes first: one that is half deleted is unfinished, never damaged.
    """
    garbage = list(garbage)
    if not garbage:
        return 0
    needs = find_needs(store, 0, min(item.planned for item in garbage))
    freed = 0
    for item in garbage:
        if _delete(store, item, needs):
            freed += item.bytes
        else:
            log.info("leaving %s: it has come into use", item.path)
    return freed


def _delete(store: Store, item: Garbage, needs: Needs) -> bool:
    ref = tuple(item.path.split("/")[1:3])
    if item.kind == "artifact":
        files = [*store.backend.list(item.path)]
        if ref in needs.reasons or ref in needs.leased or any(changed > item.changed for *_, changed in files):
            return False
        _delete_artifact(store, item.path, [path for path, *_ in files])
    elif item.kind == "file":
        if ref in needs.leased:
            return False
        store.backend.delete(item.path)
    elif item.kind == "lease":
        record = holder_of(store, item.path)
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


def _artifact_garbage(store: Store, needs: Needs, oldest: float, planned: float) -> Iterator[Garbage]:
    for ref, files in needs.files.items():
        folder = folder_of(ref)
        newest = max(changed for _, changed in files.values())
        bytes_ = sum(size for size, _ in files.values())
        may_go_on = ref not in needs.manifests and ref[0] in needs.resumable
        if ref in needs.leased:
            continue
        if ref not in needs.reasons and not may_go_on and newest <= oldest:
            yield _artifact(needs, ref, Garbage(folder, bytes_, "", "artifact", newest, planned))
            continue
        old = [path for path, (_, changed) in files.items() if changed < oldest]
        for path in _unreferenced(store, folder, old):
            yield Garbage(path, files[path][0], "no record names it", "file", files[path][1], planned)


def _artifact(needs: Needs, ref: Ref, garbage: Garbage) -> Garbage:
    manifest = needs.manifests.get(ref)
    if manifest is None:
        return replace(garbage, reason="unfinished, nobody works on it, and no run that stays would go on with it")
    newer = needs.replacement(manifest)
    recipe = recipe_of(manifest)
    return replace(
        garbage,
        reason=f"of {recipe or 'no recipe'}, run {manifest.run_id}; replaced by {newer}",
        recipe=recipe,
        run_id=manifest.run_id,
        replaced_by=newer,
    )


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


def _stale_leases(store: Store, oldest: float, planned: float) -> Iterator[Garbage]:
    for path, size, changed in store.backend.list(LEASES):
        record = holder_of(store, path)
        if isinstance(record, LeaseRecord) and holder_is_gone(record):
            reason = f"run {record.run_id} has ended without releasing it"
            yield Garbage(path, size, reason, "lease", changed, planned)
        elif isinstance(record, CorruptRecordError) and changed < oldest:
            yield Garbage(path, size, "it cannot be read, and nobody renews it", "lease", changed, planned)


def _unfinished_writes(store: Store, oldest: float, planned: float) -> Iterator[Garbage]:
    for name, size, started in store.backend.unfinished():
        if started < oldest:
            yield Garbage(name, size, "a write that was cut off", "write", started, planned)


def _local_garbage(store: Store, leased: frozenset[Ref], oldest: float, planned: float) -> Iterator[Garbage]:
    root, fetched = store.scratch_root(), store.fetched_root()
    at_work = {root / f"{stage}-{key}" for stage, key in leased}
    places = [*_children(root), *_children(fetched)]
    for path in places:
        if path not in at_work and path not in (fetched, root / WRITES):
            size, last_use = _size_and_last_use(path)
            if last_use < oldest:
                reason = "a copy of a remote file" if path.parent == fetched else "work that nobody went on with"
                yield Garbage(str(path), size, reason, "local", last_use, planned)


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
