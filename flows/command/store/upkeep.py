"""The verbs of `pile` that look after the store: what is damaged, what may go, what must stay."""

import argparse
import dataclasses
import math
from pathlib import Path

from flows.command.output import print_json
from flows.command.store.finding import existing_store, find_artifact, readable_pins
from flows.runs.request import store_option
from flows.stages import STAGES
from flows.tables import text_table
from storage.artifacts.upkeep.gc import Garbage, collect, survey
from storage.artifacts.upkeep.verify import verify_store
from storage.errors import InputError
from storage.wording import age, counted, minute, size


def verify(options: argparse.Namespace) -> int:
    """Check every stored byte; exit code 1 if something is damaged."""
    store = existing_store(options.store)
    stage = STAGES.get(options.stage).name if options.stage else None
    problems = list(verify_store(store, stage))
    damaged = [problem for problem in problems if problem.damage]
    if options.json:
        print_json([dataclasses.asdict(problem) for problem in problems])
    else:
        for problem in problems:
            print(f"{'DAMAGED' if problem.damage else 'unused '}  {problem.path}  {problem.message}")
        print(f"{counted(len(damaged), 'damaged files')} in {store.url}")
    return 1 if damaged else 0


def gc(options: argparse.Namespace) -> int:
    """Show or delete what nothing needs."""
    store = existing_store(options.store)
    _check_gc(options)
    garbage, left = survey(store, options.keep_runs, options.min_age_hours * 3600)
    if options.json:
        print_json([dataclasses.asdict(item) for item in (left if options.list_kept else garbage)])
    elif options.list_kept:
        for one in left:
            print(f"{size(one.bytes):>9}  {one.artifact}\n{'':11}{one.reason}")
    else:
        _print_garbage(garbage)
    if not options.json:
        print(f"{'stays':>9}  {counted(len(left), 'folders')}, {size(sum(one.bytes for one in left))}", end="")
        print("" if options.list_kept or not left else f"; `pile gc --kept{store_option(store)}` says why")
    if options.delete:
        freed = collect(store, garbage)
        if not options.json:
            print(f"{'deleted':>9}  {size(freed)}")
    elif garbage and not options.json and not options.list_kept:
        print("nothing was deleted; add --delete to delete what goes")
    return 0


def _print_garbage(garbage: list[Garbage]) -> None:
    for item in garbage:
        old = f", {age(item.planned - item.changed)} old" if item.kind == "artifact" else ""
        reason, _, rest = item.reason.partition("; ")
        print(f"{size(item.bytes):>9}  {item.path}\n{'':11}{reason}{old}")
        if rest:
            print(f"{'':11}{rest}")
    folders = sum(item.kind == "artifact" or Path(item.path).is_dir() for item in garbage)
    total = size(sum(item.bytes for item in garbage))
    print(f"{'goes':>9}  {counted(folders, 'folders')}, {counted(len(garbage) - folders, 'files')}, {total}")


def _check_gc(options: argparse.Namespace) -> None:
    if not (math.isfinite(options.min_age_hours) and options.min_age_hours >= 0):
        raise InputError(
            f"--min-age-hours must be a number of hours from 0 on, found {options.min_age_hours}; "
            f"leave it out for 24"
        )
    if options.keep_runs < 0:
        raise InputError(
            f"--keep-runs must be a number of runs from 0 on, found {options.keep_runs}; leave it out for 3"
        )


def pin(options: argparse.Namespace) -> int:
    """List, add or remove pins; exit code 1 if one of the list is damaged."""
    store = existing_store(options.store)
    where = store_option(store)
    if options.name == "":
        raise InputError("a pin must have a name, found an empty one; write `pile pin NAME stage/key`")
    if options.remove:
        if not options.name:
            raise InputError(f"`pile pin --remove` must be given the name of a pin; see `pile pin{where}`")
        store.remove_pin(options.name)
    elif options.name:
        if not options.what:
            raise InputError(
                f"`pile pin NAME` must be told what to keep: stage/key or a stage; see `pile ls{where}`"
            )
        manifest = find_artifact(store, options.what).manifest
        store.write_pin(options.name, manifest.stage, manifest.key)
    pins, damaged = readable_pins(store)
    rows = [{"pin": p.name, "artifact": f"{p.stage}/{p.key}", "created": p.created} for p in pins]
    print_json(rows) if options.json else print(text_table([{**r, "created": minute(r["created"])} for r in rows]))
    return 1 if damaged else 0
