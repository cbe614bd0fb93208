"""Attempts at artifacts that are not finished: what was begun, how far it came, and with which settings."""

import itertools
import logging
from collections.abc import Iterator
from dataclasses import dataclass

from storage.artifacts.layout import ARTIFACTS, attempt_path, is_part, manifest_path
from storage.artifacts.records import Attempt, decode_record
from storage.artifacts.store import Store
from storage.errors import CorruptRecordError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Unfinished:
    """What an attempt that left no manifest left behind."""

    attempt: Attempt
    parts: tuple[str, ...]
    """Names of the parts that a next attempt with the same settings takes over."""
    changed: float
    """When a record of it was written last (Unix time)."""


def unfinished_attempts(store: Store, stage: str) -> Iterator[Unfinished]:
    """Yield the attempts at artifacts of a stage that have no manifest; a damaged record is logged."""
    listing = store.backend.list(f"{ARTIFACTS}/{stage}")
    for folder, members in itertools.groupby(listing, lambda found: "/".join(found[0].split("/")[:3])):
        times = {path: changed for path, _, changed in members}
        if attempt_path(folder) not in times or manifest_path(folder) in times:
            continue
        try:
            data = store.backend.read(attempt_path(folder))
            attempt = decode_record(Attempt, data, f"{store.url}/{attempt_path(folder)}")
        except FileNotFoundError:  # finished since it was listed
            continue
        except CorruptRecordError as error:
            log.warning("%s", error)
            continue
        records = [path for path in times if is_part(path, folder)]
        parts = tuple(sorted(path.rpartition("/")[2].removesuffix(".json") for path in records))
        yield Unfinished(attempt, parts, max(times[path] for path in (*records, attempt_path(folder))))
