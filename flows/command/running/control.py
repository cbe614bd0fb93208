"""The verbs that look at runs from another shell or machine, and stop them: all that is needed is the store."""

import argparse
import os
import signal
import sys
import time
from datetime import UTC, datetime
from typing import Any

from flows.command.output import print_json, say
from flows.command.store.finding import existing_store, find_run
from flows.runs.record import BEAT_SECONDS, state_of
from flows.runs.request import store_option
from flows.tables import text_table
from storage.artifacts.processes import host_identity, start_of_process
from storage.artifacts.records import Run, RunStage
from storage.artifacts.run_log import read_log
from storage.artifacts.store import Store
from storage.errors import InputError
from storage.wording import age, duration, progress_text

FOLLOW_SECONDS = 1.0

STOP_SECONDS = 120.0
"""Time for a run to stop: it may have to write a checkpoint first."""


def status(options: argparse.Namespace) -> int:
    """Say what runs and how far it is; of one run also when it has ended."""
    store = existing_store(options.store)
    runs = [find_run(store, options.run)] if options.run else [r for r in store.runs() if state_of(r) == "running"]
    if options.json:
        print_json([_status(run) for run in runs])
    elif runs:
        print(text_table([_status_row(_status(run)) for run in runs]))
    else:
        last = find_run(store, None)
        ago = age(_seconds_since(last.finished or last.updated or last.started))
        say(
            f"nothing runs; the last run was {last.run_id} of {last.recipe_name}: {state_of(last)}, {ago} ago",
            sys.stdout,
        )
    return 0


def logs(options: argparse.Namespace) -> int:
    """Print the log of a run, with --follow until the run has ended."""
    store = existing_store(options.store)
    run = find_run(store, options.run)
    number, printed = 0, 0
    while True:
        is_over = state_of(run) != "running"  # before the log is read: what it says last must not be missed
        pieces = [*read_log(store, run.run_id, number)]
        for piece in pieces:
            sys.stdout.buffer.write(piece[printed:])
            printed = 0
        sys.stdout.flush()
        if pieces:  # the last one may still grow
            number, printed = number + len(pieces) - 1, len(pieces[-1])
        if is_over or not options.follow:
            return 0
        time.sleep(FOLLOW_SECONDS)
        run = find_run(store, run.run_id)


def cancel(options: argparse.Namespace) -> int:
    """Ask a run to stop, and wait until it has."""
    store = existing_store(options.store)
    run = _run_to_cancel(store, options.run)
    if not _signalled(run):
        store.ask_to_stop(run.run_id)
        say(f"{run.run_id} runs on {run.host} and looks every {duration(BEAT_SECONDS)}")
    end = time.monotonic() + STOP_SECONDS
    while (state := state_of(run)) == "running" and time.monotonic() < end:
        time.sleep(FOLLOW_SECONDS / 2)
        run = find_run(store, run.run_id)
    if options.json:
        print_json(_status(run))
    elif state == "running":
        see = f"pile logs {run.run_id}{store_option(store)}"
        say(f"{run.run_id} still runs after {duration(STOP_SECONDS)}; see `{see}`")
    else:
        way_on = f"; continue with:\n  {run.command}" if state != "done" else " before it was told"
        say(f"{run.run_id}: {state}{_place(run)}{way_on}", sys.stdout)
    return 1 if state == "running" else 0


def _signalled(run: Run) -> bool:
    """Stop a run of this machine. Not in both ways: a second signal would cut its last checkpoint short."""
    here = run.machine == host_identity() and run.process_start != ""
    if not here or start_of_process(run.process_id) != run.process_start:
        return False
    try:
        os.kill(run.process_id, signal.SIGTERM)
    except (ProcessLookupError, PermissionError):  # it has ended, or is another user's
        return False
    return True


def _run_to_cancel(store: Store, wanted: str | None) -> Run:
    if wanted:
        run = find_run(store, wanted)
        if (state := state_of(run)) != "running":
            raise InputError(
                f"a run to cancel must be running, found {run.run_id}: {state}; "
                f"see `pile status{store_option(store)}`"
            )
        return run
    running = [run for run in store.runs() if state_of(run) == "running"]
    if len(running) != 1:
        found = ", ".join(run.run_id for run in running) or "none"
        raise InputError(f"`pile cancel` must be told which run if not exactly one is running, found {found}")
    return running[0]


def _status(run: Run) -> dict[str, Any]:
    """Return how far a run is, as its record says: one that was killed is told of as well."""
    last = run.stages[-1] if run.stages else RunStage(stage="", key="", state="running")
    state = state_of(run)
    return {
        "run": run.run_id,
        "recipe": run.recipe_name,
        "state": state,
        "host": run.host,
        "stage": last.stage,
        "number": len(run.stages),
        "of": run.of,
        "done": last.done,
        "total": last.total,
        "unit": last.unit,
        "note": last.note,
        "eta_seconds": last.eta_seconds if state == "running" else None,
        "started": run.started,
        "updated": run.updated or run.started,
        "finished": run.finished,
        "error": run.error,
        "command": run.command,
    }


def _status_row(found: dict[str, Any]) -> dict[str, str]:
    so_far = [f"{found['stage']}, {found['number']} of {found['of']}"] if found["stage"] else []
    so_far += filter(None, [_progress_text(found)])
    if found["eta_seconds"] is not None:
        so_far.append(f"{duration(found['eta_seconds'])} left")
    return {
        "run": found["run"],
        "recipe": found["recipe"],
        "host": found["host"],
        "state": found["state"],
        "so far": "; ".join(so_far),
    }


def _progress_text(found: dict[str, Any]) -> str:
    so_far = progress_text(found["done"], found["total"], found["unit"])
    return ", ".join(filter(None, [so_far, found["note"]]))


def _place(run: Run) -> str:
    found = _status(run)
    so_far = _progress_text(found)
    stage = f" in {found['stage']}, stage {found['number']} of {found['of']}" if found["stage"] else ""
    return f"{stage}{f', at {so_far}' if so_far else ''}"


def _seconds_since(time_text: str) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(time_text)).total_seconds()
