"""What our own machinery costs when there is nothing to do: `python -m benchmarks.overhead --json`.

Runs `pile run` on a store in which every stage is finished and measures the whole process, from the start of
the interpreter to its end. No Prefect server is involved: a run with nothing to do needs none. Then a run that has
something to do: all CPU of its processes, its Prefect server included, less what the stages themselves took. A
shared machine is three times as fast at one time as at another: `yardstick_seconds`, a loop of plain Python, says
how fast it was.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SMALL = {
    "download.source.text_bytes": 2_000_000,
    "download.source.test_fraction": 0.1,
    "train_tokenizer.vocab_size": 1024,
    "train.max_steps": 4,
    "train.warmup_steps": 1,
    "train.checkpoint_every": 4,
    "train.eval_every": 4,
}
"""A demo recipe small enough to be built for this measurement when no store is given."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true", help="print JSON (the only form there is)")
    parser.add_argument("--store", help="a store with a finished demo run; a small one is built if not given")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        overrides = [] if options.store else [f"{field}={value}" for field, value in SMALL.items()]
        command = pile("run", "demo", options.store or str(Path(folder) / "store"), overrides)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=sys.stderr)
        runs = [measure(command) for _ in range(options.repeats)]
        working = [
            fixed_cost([*command[3:], "--target", "dedup", "--force", "dedup"]) for _ in range(options.repeats)
        ]
        planned = pile("plan", "demo", options.store or str(Path(folder) / "store"), overrides)
        plans = [measure(planned) for _ in range(options.repeats)]
    result = {
        "idle_run_seconds": round(statistics.median(wall for wall, _ in runs), 3),
        "idle_run_cpu_seconds": round(statistics.median(cpu for _, cpu in runs), 3),
        "working_run_fixed_cpu_seconds": round(statistics.median(sum(cost.values()) for cost in working), 3),
        "working_run_fixed_cpu_seconds_of": {
            part: round(statistics.median(cost[part] for cost in working), 3) for part in working[0]
        },
        "plan_seconds": round(statistics.median(wall for wall, _ in plans), 3),
        "import_storage_seconds": round(measure([sys.executable, "-c", "import storage.artifacts.store"])[0], 3),
        "yardstick_seconds": round(statistics.median(yardstick() for _ in range(options.repeats)), 3),
        "import_storage_loads_heavy": heavy_modules(
            "import storage, storage.artifacts.store, storage.artifacts.writer"
        ),
        "repeats": options.repeats,
    }
    print(json.dumps(result, indent=1))


def pile(verb: str, recipe: str, store: str, overrides: list[str]) -> list[str]:
    """Return the command line of a `pile` verb."""
    settings = [argument for override in overrides for argument in ("--set", override)]
    return [sys.executable, "-m", "flows.command", "--quiet", verb, recipe, "--store", store, *settings]


def measure(command: list[str], environment: dict[str, str] | None = None) -> tuple[float, float]:
    """Return (wall, CPU) seconds of one process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment or dict(os.environ))
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


WORKING = """
import json, resource, sys
import flows.command.main, tasks.core.runner

def cpu():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return [each.ru_utime + each.ru_stime for each in used]

taken = [0.0, 0.0]
build = tasks.core.runner._build

def measured(*arguments, **options):
    before = cpu()
    try:
        return build(*arguments, **options)
    finally:
        taken[:] = [sum_ + now - then for sum_, now, then in zip(taken, cpu(), before)]

tasks.core.runner._build = measured
if __name__ == "__main__":
    try:
        flows.command.main.main(sys.argv[2:])
    finally:
        with open(sys.argv[1], "w") as file:
            json.dump({"process": cpu()[0] - taken[0], "stage": sum(taken)}, file)
"""
"""A `pile` command that also writes what its process used outside the stages, and what these used in it."""


def fixed_cost(arguments: list[str]) -> dict[str, float]:
    """Return the CPU seconds of a run beside its stages: of its own process, and of its Prefect server."""
    with tempfile.TemporaryDirectory() as folder:
        script, told = Path(folder) / "working.py", Path(folder) / "told.json"
        script.write_text(WORKING)  # a file: the workers of a stage import it again
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        environment["PREFECT_API_URL"] = "http://127.0.0.1:9/none"  # nothing answers there
        _, all_of_it = measure([sys.executable, str(script), str(told), *arguments], environment)
        own: dict[str, float] = json.loads(told.read_text())
    return {"process": own["process"], "server": all_of_it - own["process"] - own["stage"]}


def yardstick() -> float:
    """Return the CPU seconds of five million additions."""
    started, total = time.process_time(), 0
    for number in range(5_000_000):
        total += number
    return time.process_time() - started


def heavy_modules(statement: str) -> list[str]:
    """Return which heavy libraries a statement loads into a fresh interpreter."""
    heavy = ("torch", "prefect", "datatrove", "deepspeed", "transformers", "s3fs")
    script = f"{statement}\nimport sys, json\nprint(json.dumps([n for n in {heavy!r} if n in sys.modules]))"
    found: list[str] = json.loads(subprocess.check_output([sys.executable, "-c", script]))
    return found


if __name__ == "__main__":
    main()
