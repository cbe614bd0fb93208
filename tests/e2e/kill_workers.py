"""Kill single worker processes of a run, and compare with a run that nobody disturbed.

    python tests/e2e/kill_workers.py --kills 20 [--seed 1] [--set FIELD=VALUE ...]

Runs the demo's data stages with two workers in new stores. In each of the stages that have workers one of them is
killed with SIGKILL, as the kernel does when memory runs out, at a random moment and in the middle of a shard. The
run must end by itself, with 0 and the content digests of the reference run. Goes on with new runs until there were
as many kills as wanted, spread evenly over the stages. Prints JSON; exit code 1 if that fails.
"""

import contextlib
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
from kill_at_random import digests, environment, kill_tree, read_options, run_command, say

STAGES = ("download", "filter", "dedup", "tokenize", "pack")
"""The stages that have workers."""
SMALL = ["execution.workers=2", "download.source.text_bytes=6000000", "download.shard_bytes=500000"]
HANG_SECONDS = 1200
"""A run that takes longer hangs: some two minutes is what it takes, on two busy cores."""


def main() -> int:
    """Run the trial and say what was found."""
    options = read_options(__doc__, "pile-kill-workers-")
    folder, seed = options.folder, options.seed

    reference = Killer({}, {}, random.Random(seed))
    code = watched_run(folder / "reference", options.overrides, reference)
    expected = digests(folder / "reference") if code == 0 else {}
    wanted = Counter(STAGES[number % len(STAGES)] for number in range(options.kills))
    kills: Counter[str] = Counter()
    failures: list[str] = [] if expected else [f"the undisturbed run ended with {code}"]
    runs = 0
    while not failures and kills != wanted and runs < 2 * max(wanted.values()) + 2:  # a stage may be missed
        runs += 1
        killer = Killer(reference.spans, wanted - kills, random.Random(seed + runs))
        code = watched_run(folder / "killed", options.overrides, killer)
        kills.update(killer.killed)
        if code != 0:
            failures.append(f"run {runs} {'hung' if code is None else f'ended with {code}'}")
        elif (found := digests(folder / "killed")) != expected:
            failures.append(
                f"run {runs} made something else of {sorted(set(found.items()) ^ set(expected.items()))}"
            )
        else:
            shutil.rmtree(folder / "killed")
        say(f"run {runs} lost a worker in {', '.join(killer.killed) or 'no stage'}; kills so far: {kills.total()}")
    result = {
        "kills_that_hit_a_worker_at_work": kills.total(),
        "kills_per_stage": {stage: kills[stage] for stage in STAGES},
        "runs": runs,
        "seed": seed,
        "stages_compared": sorted(expected),
        "failures": failures,
        "holds": kills == wanted and not failures,
    }
    print(json.dumps(result, indent=1))
    return 0 if result["holds"] else 1


class Killer:
    """Watches the workers of a run, and kills one of each wanted stage at a random moment.

    The moment is a time after the stage's first worker was seen at work, within the span that was measured; if
    none is at work just then, the next that is.
    """

    def __init__(self, spans: dict[str, float], wanted: dict[str, int], moments: random.Random) -> None:
        self.moments = {stage: moments.uniform(0, spans.get(stage, 0.0)) for stage in wanted}
        self.choice = moments.choice
        self.spans: dict[str, float] = {}
        self.killed: list[str] = []
        self._first: dict[str, float] = {}

    def look(self, run: psutil.Process) -> None:
        """See who is at work, and kill if it is time."""
        at_work = list(workers_at_work(run))
        now = time.monotonic()
        for _, stage in at_work:
            self.spans[stage] = now - self._first.setdefault(stage, now)
        due = [(worker, stage) for worker, stage in at_work if self._is_due(stage)]
        if due:
            worker, stage = self.choice(due)
            if kill_at_work(worker):
                self.killed.append(stage)

    def _is_due(self, stage: str) -> bool:
        return stage not in self.killed and self.spans[stage] >= self.moments.get(stage, float("inf"))


def workers_at_work(run: psutil.Process) -> Iterator[tuple[psutil.Process, str]]:
    """Yield the processes of a run that work on a shard now, and their stage."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in run.children(recursive=True):
            if stage := stage_of(child):
                yield child, stage


def stage_of(process: psutil.Process) -> str:
    """Return the stage of a worker that works on a shard: it has the log file of its task open. Else ''."""
    with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        for file in process.open_files():
            path = Path(file.path)
            if path.match("*-*/*/datatrove/logs/task_*.log"):  # stage and key, attempt
                return path.parts[-5].rpartition("-")[0]
    return ""


def kill_at_work(worker: psutil.Process) -> bool:
    """Kill a worker unless it has finished its shard meanwhile: stopped, it cannot do so any more."""
    with contextlib.suppress(psutil.NoSuchProcess):
        worker.suspend()
        if stage_of(worker):
            worker.send_signal(signal.SIGKILL)
            return True
        worker.resume()
    return False


def watched_run(store: Path, overrides: list[str], killer: Killer) -> int | None:
    """Run the data stages with somebody who watches; return the exit code, None if the run did not end."""
    command = [*run_command(store, [*SMALL, *overrides]), "--target", STAGES[-1]]
    environment_variables = environment(store)
    with (store.parent / f"{store.name}.log").open("ab") as output:
        process = subprocess.Popen(
            command, env=environment_variables, stdout=output, stderr=output, start_new_session=True
        )
        root = psutil.Process(process.pid)
        deadline = time.monotonic() + HANG_SECONDS
        try:
            while process.poll() is None and time.monotonic() < deadline:
                killer.look(root)
                time.sleep(0.01)  # leaves the cores to the run
            return process.poll()
        finally:
            if process.poll() is None:
                kill_tree([root, *root.children(recursive=True)])
                process.wait()


if __name__ == "__main__":
    sys.exit(main())
