"""Kill a run in each phase of filter and dedup, and compare with a run that nobody disturbed.

    python tests/e2e/kill_filter_dedup.py --kills 20 [--seed 1] [--set FIELD=VALUE ...]

A round starts from a finished download. The run is killed with SIGKILL, with all its processes, while it
filters; started again, killed while it sketches shards; again, while it looks for duplicates; again, while it
writes the shards anew; then it goes through. It must end with the digests of the reference run; no part that was
committed before a kill may be done again; and the time between the last commit and a kill, the work that is lost,
is counted.
`--kills` is how often each phase is killed. Prints JSON; exit code 1 if that fails.
"""

import json
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
from kill_at_random import changed, digests, environment, kill_tree, read_options, remember, run_command, say

PHASES = ("filter", "sketch", "plan", "drop")
SMALL = ["execution.workers=2", "download.source.text_bytes=60000000", "download.shard_bytes=2000000"]
MOST_LOST_SECONDS = 60


def main() -> int:
    """Run the trial and say what was found."""
    options = read_options(__doc__, "pile-kill-filter-dedup-")
    folder, chance = options.folder, random.Random(options.seed)
    folder.mkdir(parents=True, exist_ok=True)
    command = [*run_command(folder / "store", [*SMALL, *options.overrides]), "--target", "dedup"]
    run(command, folder)
    expected = digests(folder / "store")
    shards = len(list((folder / "store").glob("artifacts/download/*/parts/*.json")))
    kills: Counter[str] = Counter()
    lost, failures = [], []
    for number in range(options.kills):
        for stage in ("filter", "dedup"):
            shutil.rmtree(folder / "store" / "artifacts" / stage)
        committed: dict[str, bytes] = {}
        for phase in PHASES:
            seconds = kill_in(phase, chance.random(), shards, command, folder)
            remember(folder / "store", committed)
            if seconds is not None:
                kills[phase] += 1
                lost.append(seconds)
        run(command, folder)
        redone = sorted(path for path, record in committed.items() if changed(path, record))
        if redone:
            failures.append(f"round {number + 1} did {redone} again")
        if (found := digests(folder / "store")) != expected:
            failures.append(
                f"round {number + 1} made something else: {sorted(set(found.items()) - set(expected.items()))}"
            )
        say(f"round {number + 1}: {dict(kills)}, at most {max(lost, default=0):.1f} s lost")
    result = {
        "kills_per_phase": {phase: kills[phase] for phase in PHASES},
        "shards": shards,
        "seed": options.seed,
        "most_seconds_lost": round(max(lost, default=0.0), 2),
        "failures": failures,
    }
    enough = min(result["kills_per_phase"].values()) >= 0.9 * options.kills
    result["holds"] = not failures and enough and result["most_seconds_lost"] <= MOST_LOST_SECONDS
    print(json.dumps(result, indent=1))
    return 0 if result["holds"] else 1


def run(command: list[str], folder: Path) -> None:
    """Let a run go through."""
    with (folder / "log").open("ab") as output:
        subprocess.run(command, env=environment(folder / "store"), stdout=output, stderr=output, check=True)


def kill_in(phase: str, share: float, shards: int, command: list[str], folder: Path) -> float | None:
    """Start a run and kill it in a phase, when a share of it is done; return how long ago the last commit was.

    None if the run came through the phase unharmed: it is killed behind it all the same.
    """
    with (folder / "log").open("ab") as output:
        process = subprocess.Popen(
            command, env=environment(folder / "store"), stdout=output, stderr=output, start_new_session=True
        )
        root = psutil.Process(process.pid)
        last, before = time.monotonic(), -1
        try:
            while process.poll() is None:
                now, done, parts = progress(folder / "store", shards)
                if parts != before:
                    last, before = time.monotonic(), parts
                if now == phase and done >= share * 0.9:
                    if phase == "plan":
                        time.sleep(share * 0.08)
                    kill_tree([root, *root.children(recursive=True)])
                    return time.monotonic() - last
                if PHASES.index(now) > PHASES.index(phase):
                    return None
                time.sleep(0.005)
            return None
        finally:
            if process.poll() is None:
                kill_tree([root, *root.children(recursive=True)])
            process.wait()


def progress(store: Path, shards: int) -> tuple[str, float, int]:
    """Return the phase that a store is in, which share of it is done, and how many parts there are."""
    filtered = names(store, "filter")
    if len(filtered) < shards:
        return "filter", len(filtered) / shards, len(filtered)
    deduplicated = names(store, "dedup")
    sketched = sum(name.startswith("sketch-") for name in deduplicated)
    parts = len(filtered) + len(deduplicated)
    if "drops" in deduplicated:
        written = len([name for name in deduplicated if name.startswith(("train-", "val-", "test-"))])
        return "drop", written / shards, parts
    return ("plan", 1.0, parts) if sketched == shards else ("sketch", sketched / shards, parts)


def names(store: Path, stage: str) -> set[str]:
    """Return the parts of a stage that are committed."""
    return {path.stem for path in store.glob(f"artifacts/{stage}/*/parts/*.json")}


if __name__ == "__main__":
    sys.exit(main())
