"""The verbs of `pile` that look at the store and look after it."""

import argparse
import dataclasses
import json
import sys
from typing import Any

from flows.runs import open_store
from flows.stages import checked_stage
from flows.summary import describe, size, tables, text_table
from storage import lineage as lineages
from storage import maintenance
from storage.errors import InputError
from storage.records import Run
from storage.store import Artifact, Store


def ls(options: argparse.Namespace) -> int:
    """List artifacts or runs, oldest first."""
    store = open_store(options.store)
    rows: list[dict[str, Any]]
    if options.runs:
        rows = [
            {"run": r.run_id, "recipe": r.recipe_name, "target": r.target, "state": r.state, "started": r.started}
            for r in store.runs()
        ]
    else:
        stage = checked_stage(options.stage).name if options.stage else None
        pins = {(pin.stage, pin.key): pin.name for pin in store.pins()}
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
    store = open_store(options.store)
    if options.what and "/" in options.what:
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
        print_run(store, found)
    return 0


def lineage(options: argparse.Namespace) -> int:
    """Print what an artifact was made from, down to the sources."""
    store = open_store(options.store)
    manifest = find_artifact(store, options.what).manifest
    tree = lineages.lineage(store, manifest.stage, manifest.key)
    print_json(dataclasses.asdict(tree)) if options.json else print("\n".join(lineages.as_lines(tree)))
    return 0


def verify(options: argparse.Namespace) -> int:
    """Check every stored byte; exit code 1 if something is damaged."""
    store = open_store(options.store)
    stage = checked_stage(options.stage).name if options.stage else None
    problems = list(maintenance.verify_store(store, stage))
    damaged = [problem for problem in problems if problem.damage]
    if options.json:
        print_json([dataclasses.asdict(problem) for problem in problems])
    else:
        for problem in problems:
            print(f"{'DAMAGED' if problem.damage else 'unused '}  {problem.path}  {problem.message}")
        print(f"{len(damaged)} damaged files in {store.url}")
    return 1 if damaged else 0


def gc(options: argparse.Namespace) -> int:
    """Show or delete what nothing needs."""
    store = open_store(options.store)
    garbage = maintenance.plan_garbage(store, options.keep_runs, options.min_age_hours * 3600)
    if options.json:
        print_json([dataclasses.asdict(item) for item in garbage])
    else:
        for item in garbage:
            print(f"{size(item.bytes):>9}  {item.path}  {item.reason}")
        total = size(sum(item.bytes for item in garbage))
        print(f"{len(garbage)} files, {total}{'' if options.delete else '; add --delete to remove them'}")
    if options.delete:
        maintenance.collect(store, garbage)
    return 0


def pin(options: argparse.Namespace) -> int:
    """List, add or remove pins."""
    store = open_store(options.store)
    if options.remove:
        if not options.name:
            raise InputError("`pile pin --remove` must be given the name of a pin; see `pile pin`")
        store.remove_pin(options.name)
    elif options.name:
        if not options.what:
            raise InputError("`pile pin NAME` must be told what to keep: stage/key or a stage; see `pile ls`")
        manifest = find_artifact(store, options.what).manifest
        store.write_pin(options.name, manifest.stage, manifest.key)
    rows = [{"pin": p.name, "artifact": f"{p.stage}/{p.key}", "created": p.created} for p in store.pins()]
    print_json(rows) if options.json else print(text_table(rows))
    return 0


def find_artifact(store: Store, what: str) -> Artifact:
    """Return the artifact called `stage/key`, or that of a stage in the newest run.

    Raises: InputError if there is none.
    """
    stage, _, key = what.partition("/")
    checked_stage(stage)
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
    """Return a run by its id, the newest of a recipe, or the newest of all. Raises: InputError."""
    runs = list(store.runs())
    for found in reversed(runs):
        if what is None or what in (found.run_id, found.recipe_name):
            return found
    raise InputError(f"there is no run {what or ''} in {store.url}; see `pile ls --runs`")


def print_run(store: Store, found: Run) -> None:
    """Print what a run did, stage by stage, and where its results lie."""
    rows = []
    artifacts = {}
    for stage in found.stages:
        artifact = store.find(stage.stage, stage.key) if stage.key else None
        if artifact is not None:
            artifacts[stage.stage] = artifact
        rows.append(
            {
                "stage": stage.stage,
                "state": stage.state,
                "seconds": f"{stage.seconds:.1f}",
                "artifact": f"{stage.stage}/{stage.key}" if stage.key else "",
                "holds": describe(artifact.counts) if artifact else "",
            }
        )
    print(
        f"run {found.run_id}, recipe {found.recipe_name}, {found.state}{': ' + found.error if found.error else ''}"
    )
    print(text_table(rows))
    for name in ("train", "evaluate"):
        for title, table in tables(artifacts[name]).items() if name in artifacts else ():
            print(f"\n{title}\n{text_table(table)}")
    print(f"\nartifacts  {store.url}/artifacts")
    if "publish" in artifacts:
        print(f"published  {artifacts['publish'].open_folder('huggingface')}")


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


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    json.dump(value, sys.stdout, indent=1, ensure_ascii=False)
    sys.stdout.write("\n")
