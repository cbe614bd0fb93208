"""The verbs of `pile` that look at the store and look after it."""

import argparse
import dataclasses
import json
import logging
import math
import sys
from typing import Any

from flows.command.output import print_json
from flows.runs import open_store
from flows.stages import STAGES, all_stages
from flows.summary import describe, tables
from flows.tables import counted, size, text_table
from storage.artifacts import lineage as lineages
from storage.artifacts import verify as maintenance
from storage.artifacts.layout import ARTIFACTS, NAME, PINS, RUNS
from storage.artifacts.records import Pin, Run, decode_record
from storage.artifacts.store import Artifact, Store
from storage.errors import CorruptFileError, CorruptRecordError, InputError

log = logging.getLogger(__name__)


def ls(options: argparse.Namespace) -> int:
    """List artifacts or runs, oldest first."""
    store = existing_store(options.store)
    rows: list[dict[str, Any]]
    if options.runs:
        rows = [
            {"run": r.run_id, "recipe": r.recipe_name, "target": r.target, "state": r.state, "started": r.started}
            for r in store.runs()
        ]
    else:
        stage = STAGES.get(options.stage).name if options.stage else None
        pins = {(pin.stage, pin.key): pin.name for pin in readable_pins(store)[0]}
        rows = [
            {
                "artifact": f"{m.stage}/{m.key}",
                "finished": m.finished,
                "bytes": sum(file.bytes for file in (*m.files, *m.reports)),
                "holds": describe(m.counts),
                "pin": pins.get((m.stage, m.key), ""),
            }
            for m in store.manifests(stage)
        ]
    print_json(rows) if options.json else print(text_table(rows))
    return 0


def show(options: argparse.Namespace) -> int:
    """Show a run, or an artifact with its counts, tables and files."""
    store = existing_store(options.store)
    if options.what and ("/" in options.what or options.what in STAGES.names()):
        return _show_artifact(find_artifact(store, options.what), options)
    found = find_run(store, options.what)
    if options.digests:
        digests = {stage.stage: stage.content_digest for stage in found.stages}
        if options.json:
            print_json(digests)
        else:
            print("\n".join(f"{stage:16} {digest}" for stage, digest in digests.items()))
    elif options.json:
        print_json(json.loads(found.model_dump_json()))
    else:
        return print_run(store, found)
    return 0


def lineage(options: argparse.Namespace) -> int:
    """Print what an artifact was made from, down to the sources."""
    store = existing_store(options.store)
    manifest = find_artifact(store, options.what).manifest
    tree = lineages.lineage(store, manifest.stage, manifest.key)
    print_json(dataclasses.asdict(tree)) if options.json else print("\n".join(lineages.as_lines(tree)))
    return 0


def verify(options: argparse.Namespace) -> int:
    """Check every stored byte; exit code 1 if something is damaged."""
    store = existing_store(options.store)
    stage = STAGES.get(options.stage).name if options.stage else None
    problems = list(maintenance.verify_store(store, stage))
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
    garbage = maintenance.plan_garbage(store, options.keep_runs, options.min_age_hours * 3600)
    if options.json:
        print_json([dataclasses.asdict(item) for item in garbage])
    else:
        for item in garbage:
            print(f"{size(item.bytes):>9}  {item.path}  {item.reason}")
        total = size(sum(item.bytes for item in garbage))
        print(
            f"{counted(len(garbage), 'files')}, {total}{'' if options.delete else '; add --delete to remove them'}"
        )
    if options.delete:
        maintenance.collect(store, garbage)
    return 0


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
    if options.name == "":
        raise InputError("a pin must have a name, found an empty one; write `pile pin NAME stage/key`")
    if options.remove:
        if not options.name:
            raise InputError("`pile pin --remove` must be given the name of a pin; see `pile pin`")
        store.remove_pin(options.name)
    elif options.name:
        if not options.what:
            raise InputError("`pile pin NAME` must be told what to keep: stage/key or a stage; see `pile ls`")
        manifest = find_artifact(store, options.what).manifest
        store.write_pin(options.name, manifest.stage, manifest.key)
    pins, damaged = readable_pins(store)
    rows = [{"pin": p.name, "artifact": f"{p.stage}/{p.key}", "created": p.created} for p in pins]
    print_json(rows) if options.json else print(text_table(rows))
    return 1 if damaged else 0


def existing_store(url: str | None) -> Store:
    """Open a store to look at it. Raises: InputError if there is none: a misspelt place is not an empty store."""
    store = open_store(url)
    if not store.paths(RUNS) and not store.paths(ARTIFACTS):
        raise InputError(
            f"there is no store at {store.url}, neither artifacts nor runs; correct --store or PILE_STORE, or "
            f"make one with `pile run`"
        )
    return store


def readable_pins(store: Store) -> tuple[list[Pin], bool]:
    """Return the pins that can be read, and whether one cannot, which is said on the log."""
    pins, damaged = [], False
    for path in store.paths(PINS):
        try:
            pins.append(decode_record(Pin, store.backend.read(path), f"{store.url}/{path}"))
        except FileNotFoundError:  # removed while we looked
            continue
        except CorruptRecordError as error:
            damaged = True
            log.warning("%s", error)
    return pins, damaged


def find_artifact(store: Store, what: str) -> Artifact:
    """Return the artifact called `stage/key`, or that of a stage in the newest run.

    Raises: InputError if there is none.
    """
    stage, _, key = what.partition("/")
    STAGES.get(stage)
    if not key:
        finished = [
            s for r in store.runs() for s in r.stages if s.stage == stage and s.state in ("done", "cached")
        ]
        if not finished:
            raise InputError(f"no run in {store.url} has finished {stage}; see `pile ls`")
        key = finished[-1].key
    if (artifact := store.find(stage, key)) is None:
        raise InputError(f"there is no finished artifact {stage}/{key} in {store.url}; see `pile ls`")
    return artifact


def find_run(store: Store, what: str | None) -> Run:
    """Return a run by its id, the newest of a recipe, or the newest of all.

    Raises: InputError if there is none; CorruptRecordError if it is there but cannot be read.
    """
    if what is not None and NAME.fullmatch(what) and (named := store.run(what)) is not None:
        return named  # without a look at the others, of which there may be thousands
    for found in reversed(list(store.runs())):
        if what is None or what in (found.run_id, found.recipe_name):
            return found
    if what is None and (paths := store.paths(RUNS)):
        raise CorruptRecordError(
            f"the record of a run must be readable to show it, but none of these can be read: "
            f"{', '.join(f'{store.url}/{path}' for path in paths)}; restore one, or show an artifact by its "
            f"stage/key, see `pile ls`"
        )
    raise InputError(f"there is no run {f'{what!r} ' if what else ''}in {store.url}; see `pile ls --runs`")


def print_run(store: Store, found: Run) -> int:
    """Print what a run did, stage by stage, and where its results lie; return 1 if some of that is damaged."""
    rows = []
    artifacts = {}
    damage: list[str] = []
    for stage in found.stages:
        artifact, holds = None, ""
        try:
            artifact = store.find(stage.stage, stage.key) if stage.key else None
        except (CorruptRecordError, CorruptFileError) as error:
            damage.append(str(error))
            holds = "DAMAGED"
        if artifact is not None:
            artifacts[stage.stage] = artifact
            holds = describe(artifact.counts)
        rows.append(
            {
                "stage": stage.stage,
                "state": stage.state,
                "seconds": f"{stage.seconds:.1f}",
                "artifact": f"{stage.stage}/{stage.key}" if stage.key else "",
                "holds": holds,
            }
        )
    print(
        f"run {found.run_id}, recipe {found.recipe_name}, {found.state}{': ' + found.error if found.error else ''}"
    )
    print(text_table(rows))
    stages = [made for made in all_stages() if made.name in artifacts]
    for made in stages:
        try:
            if made.highlight and not made.result:  # the tables of a folder are about its files
                for title, table in tables(artifacts[made.name]).items():
                    print(f"\n{title}\n{text_table(table)}")
        except CorruptFileError as error:
            damage.append(str(error))
    print(f"\nartifacts  {store.url}/artifacts")
    for made in stages:
        try:
            if made.result:
                print(f"{made.name:9}  {artifacts[made.name].open_folder(made.result)}")
        except CorruptFileError as error:
            damage.append(str(error))
    for message in damage:
        log.warning("%s", message)
    if damage:
        print("some of this run is damaged, see above; `pile verify` reads all of the store", file=sys.stderr)
    return 1 if damage else 0


def _show_artifact(artifact: Artifact, options: argparse.Namespace) -> int:
    manifest = artifact.manifest
    if options.json:
        print_json(json.loads(manifest.model_dump_json()))
    elif options.digests:
        print(f"{manifest.stage:16} {manifest.content_digest}")
    else:
        print(f"{artifact.ref}  version {manifest.version}  digest {manifest.content_digest}")
        print(f"made {manifest.finished} in {manifest.seconds} s by run {manifest.run_id}")
        print(f"code {manifest.code_commit or 'unknown'}")
        for role, ref in manifest.inputs.items():
            print(f"from {role}: {ref.stage}/{ref.key}")
        print(text_table([{"count": name, "value": value} for name, value in manifest.counts.items()]))
        for title, rows in tables(artifact).items():
            print(f"\n{title}\n{text_table(rows)}")
        files = [{"file": file.path, "bytes": file.bytes} for file in (*manifest.files, *manifest.reports)]
        print(f"\n{text_table(files)}\nin {artifact.url}")
    return 0
