"""Bring source files to this machine, check and measure them: several at a time, with progress in bytes."""

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from storage.sources.base import SourceFile, local_file
from storage.sources.http.client import HttpMirror, Meter
from storage.sources.mirror import FolderMirror
from storage.sources.readers.registry import Fields, measure_source
from tasks.core.context import Progress

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Receiver:
    """Takes in source files."""

    fields: Fields
    threads: int
    progress: Progress

    def take_local(self, files: list[SourceFile]) -> list[SourceFile]:
        """Measure files that were hashed when they were found."""
        by_name = {file.name: file for file in files}
        return self._in_threads(list(by_name), by_name.__getitem__, Meter(len(by_name)))

    def take_from_mirror(
        self, mirror: HttpMirror | FolderMirror, listed: Mapping[str, str], folder: Path
    ) -> list[SourceFile]:
        """Fetch the listed files (name -> SHA-256) into `folder`, or check them where they lie. Closes `mirror`.

        Raises: InputError for a missing file and a wrong checksum, Fault if the mirror cannot be reached.
        """
        meter = Meter(len(listed))

        def obtain(name: str) -> SourceFile:
            if isinstance(mirror, FolderMirror):
                return mirror.check(name, listed[name])
            mirror.fetch(name, listed[name], folder / name, meter)
            return local_file(name, folder / name, listed[name])

        with closing(mirror):
            return self._in_threads(list(listed), obtain, meter)

    def _in_threads(self, names: list[str], obtain: Callable[[str], SourceFile], meter: Meter) -> list[SourceFile]:
        """Run the jobs; the first failure stops all of them, and half-fetched files stay for the next attempt."""
        started = time.monotonic()

        def receive(name: str) -> SourceFile:
            file = obtain(name)
            size = file.status[0]
            meter.update(name, size, size)
            return replace(file, text_bytes=measure_source(file.path, self.fields))

        # Threads: waiting, hashing and decompressing all run outside Python's lock.
        with ThreadPoolExecutor(self.threads) as threads:
            jobs = [threads.submit(receive, name) for name in names]
            try:
                self._watch(set(jobs), meter)
            except BaseException:
                meter.stop.set()
                threads.shutdown(cancel_futures=True)
                raise
        files = [job.result() for job in jobs]
        log.info(
            "%d source files (%.1f MB, unpacked %.1f MB) are here and checked after %.1f s",
            len(files),
            sum(file.status[0] for file in files) / 1e6,
            sum(file.text_bytes for file in files) / 1e6,
            time.monotonic() - started,
        )
        return files

    def _watch(self, jobs: set[Future[SourceFile]], meter: Meter) -> None:
        while jobs:
            done, jobs = wait(jobs, timeout=POLL_SECONDS, return_when=FIRST_EXCEPTION)
            for job in done:
                job.result()
            self.progress(*meter.read(), "bytes")
