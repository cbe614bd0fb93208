"""Looking after a store: `verify_store` reads every byte again, `plan_garbage` and `collect` make room."""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal, TypeVar

from storage.artifacts.layout import (
    ARTIFACTS,
    LEASES,
    PINS,
    RUNS,
    attempt_path,
    is_manifest,
    is_part,
    manifest_path,
)
from storage.artifacts.records import (
    Attempt,
    LeaseRecord,
    Manifest,
    Part,
    Pin,
    Record,
    Run,
    StoredFile,
    content_digest,
    decode_record,
)
from storage.artifacts.store import Store
from storage.artifacts.upkeep.gc import Garbage, collect, plan_garbage
from storage.errors import CorruptRecordError

__all__ = ["Garbage", "Problem", "collect", "plan_garbage", "verify_store"]

THREADS = 8
"""Files that are read at once: hashing leaves the interpreter, and an object store answers many at a time."""

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class Problem:
    """What `verify_store` found about one path of the store."""

    path: str
    message: str
    kind: Literal["damaged", "unreferenced"] = "damaged"
    """`unreferenced` is no damage: a killed attempt left the file, or one at work has not recorded it yet."""

    @property
    def damage(self) -> bool:
        """Whether a stored byte is not what it was."""
        return self.kind == "damaged"


@dataclass(frozen=True)
class _Named:
    """A file, as one record describes it."""

    path: str
    file: StoredFile
    record: str


def verify_store(store: Store, stage: str | None = None) -> Iterator[Problem]:
    """Read every record, and every file that a record names; yield what is not as it was written.

    With a stage only its artifacts. Work in progress (scratch) is not looked at; what a run at work removes
    meanwhile is not reported. Memory: the names of one artifact's files, and a piece of eight of them.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        listing = store.backend.list(f"{ARTIFACTS}/{stage}" if stage else ARTIFACTS)
        paths = (path for path, _, _ in listing)
        for folder, members in itertools.groupby(paths, lambda path: "/".join(path.split("/")[:3])):
            yield from _verify_artifact(store, pool, folder, list(members))
        if stage is None:
            yield from _verify_records(store, pool, Run, RUNS)
            yield from _verify_records(store, pool, Pin, PINS)
            yield from _verify_records(store, pool, LeaseRecord, LEASES)


def _verify_artifact(store: Store, pool: ThreadPoolExecutor, folder: str, paths: list[str]) -> Iterator[Problem]:
    kinds: dict[str, type[Manifest] | type[Part] | type[Attempt]] = {}
    for path in paths:
        if path == manifest_path(folder):
            kinds[path] = Manifest
        elif path == attempt_path(folder):
            kinds[path] = Attempt
        elif is_part(path, folder):
            kinds[path] = Part
    named: dict[tuple[str, int, str], _Named] = {}
    for path, record in zip(
        kinds, _in_parallel(pool, lambda path: _read(store, kinds[path], path), kinds), strict=True
    ):
        if isinstance(record, Problem):
            yield record
        elif record is not None:
            if message := _contradiction(path, record):
                yield Problem(path, message)
            for file in _files(record):
                place = f"{folder}/{file.path}"
                named[place, file.bytes, file.sha256] = _Named(place, file, path)
    for problem in _in_parallel(pool, lambda each: _verify_file(store, each), named.values()):
        if problem is not None:
            yield problem
    known = {*kinds, *(place for place, _, _ in named)}
    for path in paths:
        if path not in known:
            yield Problem(path, "no record names this file; `pile gc` removes it when it is old", "unreferenced")


def _verify_file(store: Store, named: _Named) -> Problem | None:
    try:
        size, sha256 = store.backend.digest(named.path)
        found = f"{size} bytes with sha256 {sha256}"
        if (size, sha256) == (named.file.bytes, named.file.sha256):
            return None
    except FileNotFoundError:
        found = "no file"
    except OSError as error:  # a disk that cannot read this file may still read the next
        found = str(error)
    record = _read(store, Manifest if is_manifest(named.record) else Part, named.record)
    if record is None or (isinstance(record, Record) and named.file not in _files(record)):
        return None  # replaced or removed while we looked
    stage = named.path.split("/")[1]
    return Problem(
        named.path,
        f"must have {named.file.bytes} bytes with sha256 {named.file.sha256}, as {named.record} says, "
        f"found {found}; restore the file, or rebuild the artifact with `pile run RECIPE --force {stage}`",
    )


def _verify_records(
    store: Store, pool: ThreadPoolExecutor, record_type: type[Record], folder: str
) -> Iterator[Problem]:
    paths = store.paths(folder)
    for path, record in zip(
        paths, _in_parallel(pool, lambda path: _read(store, record_type, path), paths), strict=True
    ):
        if isinstance(record, Problem):
            yield record
        elif record is not None and (message := _contradiction(path, record)):
            yield Problem(path, message)
        elif isinstance(record, Pin):
            try:
                if store.manifest(record.stage, record.key) is None:
                    yield Problem(
                        path, f"must name a finished artifact, found none at {record.stage}/{record.key}"
                    )
            except CorruptRecordError:
                continue  # reported with the artifact


def _read(store: Store, record_type: type[Record], path: str) -> Record | Problem | None:
    try:
        return decode_record(record_type, store.backend.read(path), path)
    except FileNotFoundError:  # removed since it was listed
        return None
    except (CorruptRecordError, OSError) as error:
        return Problem(path, str(error))


def _contradiction(path: str, record: Record) -> str:
    """Say what a record that is whole in itself gets wrong about its place or its files; empty if nothing."""
    place = PurePosixPath(path)
    if isinstance(record, Manifest):
        if (record.stage, record.key) != place.parts[-3:-1]:
            return f"must lie with its own artifact, found the manifest of {record.stage}/{record.key}"
        if record.content_digest != content_digest(record.files):
            return f"must have the content digest of its files, found {record.content_digest}"
        return ""
    if isinstance(record, LeaseRecord):
        return ""
    if isinstance(record, Attempt):
        own = (record.stage, record.key) == place.parts[-3:-1]
        return "" if own else f"must lie with its own artifact, found the attempt at {record.stage}/{record.key}"
    name = record.part if isinstance(record, Part) else record.name if isinstance(record, Pin) else ""
    name = record.run_id if isinstance(record, Run) else name
    return "" if place.name == f"{name}.json" else f"must lie under its own name, found the record of {name!r}"


def _files(record: Record) -> tuple[StoredFile, ...]:
    if isinstance(record, Manifest):
        return (*record.files, *record.reports)
    return record.files if isinstance(record, Part) else ()


def _in_parallel(
    pool: ThreadPoolExecutor, function: Callable[[ItemT], ResultT], items: Iterable[ItemT]
) -> Iterator[ResultT]:
    """Map in order, with few items under way: the results of a million files need not be kept."""
    under_way: deque[Future[ResultT]] = deque()
    for item in items:
        under_way.append(pool.submit(function, item))
        if len(under_way) >= 4 * THREADS:
            yield under_way.popleft().result()
    while under_way:
        yield under_way.popleft().result()
