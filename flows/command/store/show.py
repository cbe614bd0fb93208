"""The verbs of `pile` that look at the store, and how they find what they are asked for."""

import argparse
import dataclasses
import json
import logging
import sys
from typing import Any

from flows.command.output import print_json
from flows.command.store.finding import existing_store, find_artifact, find_run, readable_pins
from flows.stages import STAGES, all_stages
from flows.summary import describe, tables
from flows.tables import text_table
from storage.artifacts import lineage as lineages
from storage.artifacts.records import Run
from storage.artifacts.store import Artifact, Store
from storage.errors import CorruptFileError, CorruptRecordError

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
