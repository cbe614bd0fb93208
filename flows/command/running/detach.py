"""Start a run that does not end with its terminal."""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from flows.command.output import print_json, say
from flows.runs.request import RUN_COMMAND, RUN_ID, Request, new_run_id, override_text, store_option

START_SECONDS = 180.0
"""Time for the process of a run to come up and write its record: a new Prefect server may take 120 of them."""

POLL_SECONDS = 0.2


def run_detached(options: argparse.Namespace, request: Request) -> int:
    """Start the run in a session of its own and return once its record is in the store, or it has failed."""
    run_id = new_run_id()
    output = _output_file(request, run_id)
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "flows.command", "run", *_arguments(options, request)],
            env={**os.environ, RUN_ID: run_id, RUN_COMMAND: request.command},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # the end of the terminal sends SIGHUP to its session alone
        )
    end = time.monotonic() + START_SECONDS
    while request.store.run(run_id) is None:
        if process.poll() is not None:
            sys.stderr.write(output.read_text(errors="replace"))
            return process.returncode
        if time.monotonic() > end:
            print(f"process {process.pid} has not begun run {run_id} yet; see {output}", file=sys.stderr)
            return 1
        time.sleep(POLL_SECONDS)
    if options.json:
        print_json({"run": run_id, "process": process.pid, "output": str(output)})
        return 0
    where = store_option(request.store)
    say(f"run {run_id} goes on in the background, also when this terminal is closed", sys.stdout)
    print(f"watch it   pile status{where}")
    print(f"its log    pile logs --follow {run_id}{where}")
    print(f"stop it    pile cancel {run_id}{where}")
    return 0


def _output_file(request: Request, run_id: str) -> Path:
    folder = request.store.scratch_root() / "detached"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{run_id}.txt"


def _arguments(options: argparse.Namespace, request: Request) -> list[str]:
    words = [options.recipe, "--target", options.target, "--store", request.store.url]
    words += [
        word for field, value in request.overrides.items() for word in ("--set", override_text(field, value))
    ]
    return words + [word for stage in options.force for word in ("--force", stage)]
