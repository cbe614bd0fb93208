"""Bring source files to this machine, check and measure them: several at a time, with progress in bytes."""

import logging
import time
from collections.abc import Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

from storage.sources.base import OpenSource, Source
from storage.sources.checked_files import SourceFile, file_status
from storage.sources.progress import DownloadProgress
from storage.sources.readers.base import Columns
from storage.sources.readers.registry import reader_for
from tasks.core.context import Progress

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
NAMED_FILES = 10
"""Files in which a field holds the text, and that are named on the log."""


def fetch_files(
    source: Source[Any], digests: Mapping[str, str], folder: Path, progress: Progress
) -> list[SourceFile]:
    """Return the checked and measured files of a source, into `folder` if they are not on this machine.

    The first failure stops all of them, and half-fetched files stay for the next attempt. Raises: InputError for
    a missing file and a wrong checksum, Fault if the source cannot be reached.
    """
    started = time.monotonic()
    with source.open(folder) as opened:
        listed = opened.list_files(digests)
        bytes_so_far = DownloadProgress(len(listed))
        # Threads: waiting, hashing and decompressing all run outside Python's lock.
        with ThreadPoolExecutor(source.parallel_files) as threads:
            jobs = [
                threads.submit(_fetch, opened, name, sha256, source.columns, bytes_so_far)
                for name, sha256 in listed.items()
            ]
            try:
                _watch(set(jobs), bytes_so_far, progress)
            except BaseException:
                bytes_so_far.stop.set()
                threads.shutdown(cancel_futures=True)
                raise
    files = [job.result() for job in jobs]
    _say_text_fields(files, source.columns)
    log.info(
        "%d source files (%.1f MB, unpacked %.1f MB) are here and checked after %.1f s",
        len(files),
        sum(file.status[0] for file in files) / 1e6,
        sum(file.text_bytes for file in files) / 1e6,
        time.monotonic() - started,
    )
    return files


def fetched_again(file: SourceFile, source: Source[Any], folder: Path) -> SourceFile:
    """Return the file as it lies on this machine: another one that does not have it brings it from the source."""
    if file.is_at_hand():
        return file
    with source.open(folder) as opened:
        path = opened.fetch(file.name, file.sha256, DownloadProgress(1))
    return replace(file, path=path, status=file_status(path))


def _fetch(
    opened: OpenSource, name: str, sha256: str, columns: Columns, bytes_so_far: DownloadProgress
) -> SourceFile:
    path = opened.fetch(name, sha256, bytes_so_far)
    file = SourceFile(name, sha256, path, file_status(path))
    return replace(file, text_bytes=reader_for(name).measure(path, columns))


def _say_text_fields(files: list[SourceFile], columns: Columns) -> None:
    """Say where the text was found, if there was a choice."""
    if len(columns.text) == 1:
        return
    found: dict[str, list[str]] = {}
    for file in files:
        for name, field in reader_for(file.name).text_fields(file.path, file.name, columns).items():
            found.setdefault(field, []).append(name)
    for field, names in found.items():
        more = f" and {len(names) - NAMED_FILES} more" if len(names) > NAMED_FILES else ""
        log.info("the text is the field %r in %s%s", field, ", ".join(names[:NAMED_FILES]), more)


def _watch(jobs: set[Future[SourceFile]], bytes_so_far: DownloadProgress, progress: Progress) -> None:
    while jobs:
        done, jobs = wait(jobs, timeout=POLL_SECONDS, return_when=FIRST_EXCEPTION)
        for job in done:
            job.result()
        progress(*bytes_so_far.totals(), "bytes")
