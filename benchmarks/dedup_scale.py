"""How dedup's memory and time grow: `python -m benchmarks.dedup_scale --json [--documents 5000000]`.

The step that one process does for the whole corpus (exact duplicates, links between buckets, decisions) on
synthetic sketches, for a quarter of the documents and for all of them: half of the documents have a near twin.
Each size runs in a process of its own. Printed are its memory beside what it was given, per document and per
duplicated one, and its CPU time.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.filter_dedup import peak_rss_mb
from tasks.core.compiling import Hashes, Hashes32
from tasks.dedup.config import DedupConfig
from tasks.dedup.duplicates import Documents, find_duplicates
from tasks.dedup.links import Numbers

SHINGLES = 8
"""Of a document: what is compared, not what is signed, so that the files stay small."""
SIMILARITY = 0.6
"""Of a document and its twin: the share of hashes that agree, and of shingles."""
SHARED = 6
"""Of the 8 shingles of a document its twin has 6: a similarity of 0.6."""


def main() -> None:
    """Run both sizes and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON (the only form there is)")
    parser.add_argument("--documents", type=int, default=5_000_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measured(options.documents, options.threads)))
        return
    sizes = [options.documents // 4, options.documents]
    found = [json.loads(subprocess.check_output(command(size, options.threads))) for size in sizes]
    print(json.dumps({"sizes": found}, indent=1))


def command(documents: int, threads: int) -> list[str]:
    """Return what measures one size."""
    numbers = ["--documents", str(documents), "--threads", str(threads)]
    return [sys.executable, "-m", "benchmarks.dedup_scale", "--one", *numbers]


def measured(count: int, threads: int) -> dict[str, Any]:
    """Find the duplicates of so many synthetic documents and say what that took."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        find_duplicates(DedupConfig(), synthetic(1000, work), work, 1)  # what is compiled is loaded
        before = memory("RssAnon")
        documents = synthetic(count, work)
        given = memory("RssAnon") - before
        watcher = Watcher()
        began = time.process_time()
        watcher.start()
        found = find_duplicates(DedupConfig(), documents, work, threads)
        seconds = time.process_time() - began
        peak = watcher.stop() - before - given
    return {
        "documents": count,
        "duplicated": found.compared,
        "dropped": len(found.documents),
        "given_bytes_per_document": round(given / count, 1),
        "peak_anonymous_mb": round(peak / 1e6),
        "bytes_per_document": round(peak / count, 1),
        "bytes_per_duplicated_document": round(peak / found.compared, 1),
        "peak_rss_mb": round(peak_rss_mb()),
        "cpu_seconds": round(seconds, 1),
        "documents_per_cpu_second": round(count / seconds),
    }


class Watcher(threading.Thread):
    """Looks how much memory of its own this process has, beside files that are mapped, which can be dropped."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self._end = threading.Event()

    def run(self) -> None:
        """Look a hundred times a second."""
        while not self._end.wait(0.01):
            self.peak = max(self.peak, memory("RssAnon"))

    def stop(self) -> int:
        """Return the most that was seen, in bytes."""
        self._end.set()
        self.join()
        return self.peak


def memory(field: str) -> int:
    """Return a figure of /proc/self/status in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"/proc/self/status must have {field}: this needs Linux")


def synthetic(count: int, folder: Path) -> Documents:
    """Return documents of which those of the first half are twins: 0 and 1, 2 and 3, and so on."""
    bands = DedupConfig().bands
    agree = int(SIMILARITY**bands.hashes * 2**32)

    def pair(numbers: Hashes) -> Hashes:
        return np.where(numbers < count // 2, numbers // np.uint64(2), numbers).astype(np.uint64)

    for index in range(bands.buckets):  # as the sketches of shards lie on disk
        with (folder / f"bucket-{index}").open("wb") as file:
            for begin in range(0, count, 1_000_000):
                numbers = np.arange(begin, min(begin + 1_000_000, count), dtype=np.uint64)
                shared = mixed(pair(numbers) * np.uint64(1000) + np.uint64(index))
                own = mixed(numbers + np.uint64(index + 1) * np.uint64(1 << 40))
                np.where((shared >> np.uint64(32)) < agree, shared, own).tofile(file)

    def shingles(wanted: Numbers) -> Iterator[tuple[Numbers, Sequence[Hashes32]]]:
        for lot in np.array_split(wanted, max(1, len(wanted) // 10_000)):
            owners = np.repeat(pair(lot.astype(np.uint64))[:, None], SHINGLES, axis=1)
            owners[:, SHARED:] = lot[:, None].astype(np.uint64) + np.uint64(count)
            found = mixed(owners * np.uint64(SHINGLES) + np.arange(SHINGLES, dtype=np.uint64)) >> np.uint64(32)
            yield lot, list(np.sort(found.astype(np.uint32), axis=1))

    numbers = np.arange(count, dtype=np.uint64)
    return Documents(
        exact=np.stack((mixed(numbers), numbers), axis=1),
        sizes=np.full(count, SHINGLES, np.uint32),
        near=np.ones(count, np.bool_),
        held_out=np.zeros(count, np.bool_),
        earlier=0,
        order=np.arange(count),
        hits=np.empty((0, 3), np.int64),
        pairs=np.empty((0, 2), np.int64),
        bucket=lambda index: np.fromfile(folder / f"bucket-{index}", np.uint64),
        shingles=shingles,
    )


def mixed(values: Hashes) -> Hashes:
    """Return numbers of which every bit depends on every bit of those given."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


if __name__ == "__main__":
    main()
