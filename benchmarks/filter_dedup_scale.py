"""How filter and dedup take more data: `python -m benchmarks.filter_dedup_scale FOLDER --json`.

Both stages with their defaults on a quarter of the text and on all of it, in shards of one size, in one process
each that works as a worker does. Printed are its CPU time per megabyte and its peak memory; that of four times the
data should be the same.

FOLDER has `.jsonl` or `.jsonl.zst` files with a field `text`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.filter_dedup import make_corpus, opened, peak_rss_mb, run_stages, warm_up
from storage.artifacts.store import Store
from tasks.dedup.config import DedupConfig
from tasks.filter.config import FilterConfig

SHARD_MEGABYTES = 5


def main() -> None:
    """Run both sizes and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", action="store_true", help="print JSON (the only form there is)")
    parser.add_argument("--megabytes", type=float, default=150.0, help="text to take, from the first files on")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measured(options.folder, options.megabytes)))  # the folder of a corpus that is made
        return
    found = []
    for megabytes in (options.megabytes / 4, options.megabytes):
        with tempfile.TemporaryDirectory() as work:
            shards = round(megabytes / SHARD_MEGABYTES)
            _, size = make_corpus(options.folder, Path(work), megabytes, shards)
            command = [sys.executable, "-m", "benchmarks.filter_dedup_scale", work, "--one"]
            found.append(json.loads(subprocess.check_output([*command, "--megabytes", str(size)])))
    less, more = found
    ratios = {
        "memory_ratio": round(more["peak_rss_mb"] / less["peak_rss_mb"], 3),
        "throughput_ratio": round(more["mb_per_s_core"] / less["mb_per_s_core"], 3),
    }
    print(json.dumps({**ratios, "sizes": found}, indent=1))


def measured(work: Path, megabytes: float) -> dict[str, Any]:
    """Run both stages on a corpus of so much text and say what that took."""
    store = Store(str(work / "store"))
    warm_up()
    cost = run_stages(store, FilterConfig(), DedupConfig())
    return {
        "megabytes": round(megabytes, 1),
        "documents_kept": opened(store, "dedup").counts["documents"],
        "cpu_seconds": {stage: round(seconds, 2) for stage, seconds in cost.items()},
        "mb_per_s_core": round(megabytes / sum(cost.values()), 1),
        "peak_rss_mb": round(peak_rss_mb()),
    }


if __name__ == "__main__":
    main()
