"""The verbs of `pile` that look at the store, and how they find what they are asked for."""

import argparse
import contextlib
import dataclasses
import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

from flows.command.output import print_json
from flows.command.store.finding import existing_store, find_artifact, find_run, readable_pins
from flows.runs.record import state_of
from flows.runs.request import store_option
from flows.stages import STAGES, all_stages
from flows.summary import DETAILS, describe, tables
from flows.tables import text_table
from storage.artifacts import lineage as lineages
from storage.artifacts.records import Run, RunStage, RunState
from storage.artifacts.store import Artifact, Store
from storage.errors import CorruptFileError, CorruptRecordError
from storage.wording import duration, minute, progress_text, size
from tasks.core.stage import Stage

log = logging.getLogger(__name__)


def ls(options: argparse.Namespace) -> int:
    """List artifacts or runs, oldest first."""
    store = existing_store(options.store)
    rows: list[dict[str, Any]]
    if options.runs:
        rows = [
            {
                "run": r.run_id,
                "recipe": r.recipe_name,
                "target": r.target,
                "state": state_of(r),
                "started": r.started,
            }
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
    print_json(rows) if options.json else print(text_table([_short(row) for row in rows]))
    return 0


def _short(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row for people: times to the minute, bytes in powers of ten."""
    short = dict(row)
    for name in ("finished", "started"):
        if name in row:
            short[name] = minute(row[name])
    if "bytes" in row:
        short["bytes"] = size(row["bytes"])
    return short


def show(options: argparse.Namespace) -> int:
    """Show a run, or an artifact with its counts, tables and files."""
    store = existing_store(options.store)
    if options.what and ("/" in options.what or options.what in STAGES.names()):
        return _show_artifact(find_artifact(store, options.what), options)
    found = find_run(store, options.what, others=STAGES.names())
    if options.digests:
        digests = {stage.stage: stage.content_digest for stage in found.stages}
        if options.json:
            print_json(digests)
        else:
            print("\n".join(f"{stage:16} {digest}" for stage, digest in digests.items()))
    elif options.json:
        print_json(json.loads(found.model_copy(update={"state": state_of(found)}).model_dump_json()))
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
    """Print what a run did, stage by stage, and its results; return 1 if some of that is damaged."""
    damage = _Damage(store)
    state = state_of(found)
    print(f"run {found.run_id}, recipe {found.recipe_name}, {state}{': ' + found.error if found.error else ''}")
    print(text_table([_stage_row(store, stage, state, damage) for stage in found.stages]))
    _print_results(store, found, damage, brief=False)
    if state not in ("done", "running") and found.command:
        print(f"continue   {found.command}")
    return damage.told()


def print_results(store: Store, found: Run) -> int:
    """Print what people look for first after a run, and where it lies; return 1 if some of that is damaged."""
    damage = _Damage(store)
    _print_results(store, found, damage, brief=True)
    return damage.told()


class _Damage:
    """Collects what is damaged while the rest is shown."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.messages: list[str] = []

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        try:
            yield
        except (CorruptRecordError, CorruptFileError) as error:
            self.messages.append(str(error))

    def told(self) -> int:
        for message in self.messages:
            log.warning("%s", message)
        if self.messages:
            verify = f"pile verify{store_option(self.store)}"
            print(f"some of this run is damaged, see above; `{verify}` reads all of the store", file=sys.stderr)
        return 1 if self.messages else 0


def _stage_row(store: Store, stage: RunStage, run_state: RunState, damage: _Damage) -> dict[str, Any]:
    holds = "" if stage.key else progress_text(stage.done, stage.total, stage.unit)
    if stage.key:
        holds = "DAMAGED"
        with damage.noted():
            artifact = store.find(stage.stage, stage.key)
            holds = describe(artifact.counts) if artifact is not None else "deleted since"
    return {
        "stage": stage.stage,
        "state": run_state if stage.state == "running" else stage.state,
        "time": duration(stage.seconds) if stage.seconds and stage.state != "cached" else "",
        "key": stage.key,
        "holds": holds,
    }


def _print_results(store: Store, found: Run, damage: _Damage, *, brief: bool) -> None:
    artifacts: list[tuple[Stage, Artifact]] = []
    keys = {stage.stage: stage.key for stage in found.stages if stage.key}
    for stage in (stage for stage in all_stages() if stage.name in keys):
        with contextlib.suppress(CorruptRecordError, CorruptFileError):  # its row says so
            if (artifact := store.find(stage.name, keys[stage.name])) is not None:
                artifacts.append((stage, artifact))
    for stage, artifact in artifacts:
        if stage.highlight and not stage.result:  # the tables of a folder are about its files
            with damage.noted():
                for title, table in tables(artifact).items():
                    if not (brief and title in DETAILS):
                        print(f"\n{title}\n{text_table(table)}")
    print(f"\nartifacts  {store.url}/artifacts")
    for stage, artifact in artifacts:
        if stage.result:
            with damage.noted():
                print(f"{stage.name:9}  {artifact.open_folder(stage.result)}")
    if brief:
        print(f"details    pile show {found.run_id}{store_option(store)}")
    if any(stage.result for stage, _ in artifacts):
        print(f"try it     pile generate {found.recipe_name} --prompt TEXT{store_option(store)}")


def _show_artifact(artifact: Artifact, options: argparse.Namespace) -> int:
    manifest = artifact.manifest
    if options.json:
        print_json(json.loads(manifest.model_dump_json()))
    elif options.digests:
        print(f"{manifest.stage:16} {manifest.content_digest}")
    else:
        print(f"{artifact.ref}  version {manifest.version}\ndigest {manifest.content_digest}")
        print(f"made {minute(manifest.finished)} in {duration(manifest.seconds)} by run {manifest.run_id}")
        print(f"code {manifest.code_commit or 'unknown'}")
        for role, ref in manifest.inputs.items():
            print(f"from {role}: {ref.stage}/{ref.key}")
        print(text_table([{"count": name, "value": value} for name, value in manifest.counts.items()]))
        for title, rows in tables(artifact).items():
            print(f"\n{title}\n{text_table(rows)}")
        files = [{"file": file.path, "bytes": file.bytes} for file in (*manifest.files, *manifest.reports)]
        print(f"\n{text_table(files)}\nin {artifact.url}")
    return 0
