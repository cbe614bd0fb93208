"""Bring source files to this machine, check and measure them: several at a time, with progress in bytes."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

from storage.errors import InputError
from storage.notice import NOTICE
from storage.sources.base import OpenSource, Source
from storage.sources.checked_files import SourceFile, file_status
from storage.sources.progress import DownloadProgress
from storage.sources.readers.base import BadLine, Columns
from storage.sources.readers.registry import reader_for
from tasks.core.context import Progress

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
FIRST_RECORDS = 1000
"""A file that begins with so many bad records and no document is of another kind than its name says."""

NAMED_FILES = 10
"""Files in which a field holds the text, and that are named on the log."""


def fetch_files(
    source: Source[Any],
    digests: Mapping[str, str],
    folder: Path,
    progress: Progress,
    choose: Callable[[Iterable[str]], list[str]] = list,
    *,
    look_inside: bool = True,
) -> list[SourceFile]:
    """Return the checked and measured files of a source, into `folder` if they are not on this machine.

    Of the names of all files `choose` returns those that are wanted. The first failure stops all of them, and
    half-fetched files stay for the next attempt. With `look_inside` files that begin with bad records only are
    refused, before anything is made of the others. Raises: InputError for those, for a missing file and a wrong
    checksum, Fault if the source cannot be reached.
    """
    started = time.monotonic()
    with source.open(folder) as opened:
        listed = opened.list_files(digests)
        listed = {name: listed[name] for name in choose(listed)}
        bytes_so_far = DownloadProgress(len(listed))
        # Threads: waiting, hashing and decompressing all run outside Python's lock.
        with ThreadPoolExecutor(source.parallel_files) as threads:
            jobs = [
                threads.submit(_fetch, opened, name, sha256, source, bytes_so_far, look_inside=look_inside)
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
    opened: OpenSource,
    name: str,
    sha256: str,
    source: Source[Any],
    bytes_so_far: DownloadProgress,
    *,
    look_inside: bool,
) -> SourceFile:
    path = opened.fetch(name, sha256, bytes_so_far)
    file = SourceFile(name, sha256, path, file_status(path))
    file = replace(file, text_bytes=reader_for(name).measure(path, source.columns))
    if look_inside:
        _check_beginning(file, source)
    return file


def _check_beginning(file: SourceFile, source: Source[Any]) -> None:
    """Raise InputError if the first records of a file are all bad, so that it is of another kind than it seems.

    That is known at once; the share of bad records is known only when all files are read.
    """
    first: BadLine | None = None
    items = reader_for(file.name).read(file.path, file.name, source.columns, lambda offset: True)
    for number, (_, item) in enumerate(items, start=1):
        if not isinstance(item, BadLine):
            return
        first = first or item
        if number == FIRST_RECORDS:
            break
    else:
        return
    path = f"{source.origin}/{file.name}" if source.origin else file.name
    raise InputError(
        f"{path} must hold documents, but its first {FIRST_RECORDS} records hold none; line {first.line}: "
        f"{first.reason}; say where the text is (download.source.text_field), leave the file out, or set "
        f"download.max_bad_share=1 to take whatever can be read"
    )


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
        log.log(NOTICE, "the text is the field %r in %s%s", field, ", ".join(names[:NAMED_FILES]), more)


def _watch(jobs: set[Future[SourceFile]], bytes_so_far: DownloadProgress, progress: Progress) -> None:
    while jobs:
        done, jobs = wait(jobs, timeout=POLL_SECONDS, return_when=FIRST_EXCEPTION)
        for job in done:
            job.result()
        progress(*bytes_so_far.totals(), "bytes")
