"""What a run would do, and why. Reads the store and the checksums of the sources; writes nothing."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from flows.chain import Step
from storage.artifacts.records import Manifest
from storage.artifacts.store import Artifact, Store
from storage.config import Config
from tasks.core.stage import Stage, input_identity, stage_key


@dataclass(frozen=True)
class Change:
    """A field that differs from the nearest finished artifact of the stage."""

    field: str
    old: Any
    new: Any


@dataclass(frozen=True)
class StagePlan:
    """What would happen to one stage."""

    stage: Stage
    state: Literal["cached", "run", "waiting"]
    key: str | None
    """None while an upstream result is not known yet."""
    reason: str
    changes: list[Change] = field(default_factory=list)
    artifact: Artifact | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the form of `pile plan --json`."""
        changes = [{"field": change.field, "old": change.old, "new": change.new} for change in self.changes]
        return {"stage": self.stage.name, "state": self.state, "key": self.key, "changes": changes}


def make_plan(steps: Sequence[Step], store: Store, force: Collection[str] = ()) -> list[StagePlan]:
    """Say of each step, given in running order: cached, to run, or waiting for an upstream result.

    Raises: Fault if the store or the source's checksums cannot be read.
    """
    plans: dict[str, StagePlan] = {}
    for step in steps:
        stage, config = step.stage, step.config
        upstream = {role: plans[name] for role, name in step.inputs.items()}
        waiting_for = [plan.stage.name for plan in upstream.values() if plan.artifact is None]
        if waiting_for:
            changes, _ = _changes(stage, config, None, None, store)
            reason = f"waits for the result of {', '.join(waiting_for)}"
            plans[stage.name] = StagePlan(stage, "waiting", None, reason, changes)
        else:
            inputs = {role: plan.artifact for role, plan in upstream.items() if plan.artifact is not None}
            plans[stage.name] = _plan_stage(stage, config, inputs, store, forced=stage.name in force)
    return list(plans.values())


def _plan_stage(
    stage: Stage, config: Config, inputs: dict[str, Artifact], store: Store, *, forced: bool
) -> StagePlan:
    sources = dict(stage.sources(config)) if stage.sources else {}
    identity = input_identity(stage, {role: artifact.reference for role, artifact in inputs.items()})
    key = stage_key(stage, config, identity, sources)
    if forced:
        return StagePlan(stage, "run", key, "forced")
    if artifact := store.find(stage.name, key):
        return StagePlan(stage, "cached", key, f"finished at {artifact.manifest.finished}", artifact=artifact)
    changes, nearest = _changes(stage, config, identity, sources, store)
    if nearest is None:
        reason = "was never built in this store"
    else:
        reason = f"differs from {stage.name}/{nearest.key}, the nearest finished artifact"
    return StagePlan(stage, "run", key, reason, changes)


def _changes(
    stage: Stage,
    config: Config,
    inputs: dict[str, str] | None,
    sources: dict[str, str] | None,
    store: Store,
) -> tuple[list[Change], Manifest | None]:
    """Compare with the finished artifact of the stage that differs in the fewest fields, the newest of those."""
    best: tuple[list[Change], Manifest | None] = ([], None)
    for manifest in store.manifests(stage.name):
        old = _fields(stage, manifest.config, manifest.version, None, None)
        new = _fields(stage, config.identity(), stage.version, inputs, sources)
        if inputs is not None and sources is not None:
            old |= {f"inputs.{name}": value for name, value in input_identity(stage, manifest.inputs).items()}
            old |= {f"sources.{name}": digest for name, digest in manifest.sources.items()}
        changes = [
            Change(name, old.get(name), new.get(name))
            for name in sorted({*old, *new})
            if old.get(name) != new.get(name)
        ]
        if best[1] is None or len(changes) <= len(best[0]):
            best = (changes, manifest)
    return best


def _fields(
    stage: Stage,
    config: dict[str, Any],
    version: int,
    inputs: dict[str, str] | None,
    sources: dict[str, str] | None,
) -> dict[str, Any]:
    fields = {f"{stage.config_field}.{name}": value for name, value in _flat(config)}
    fields["version"] = version
    fields |= {f"inputs.{role}": digest for role, digest in (inputs or {}).items()}
    fields |= {f"sources.{name}": digest for name, digest in (sources or {}).items()}
    return fields


def _flat(value: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found = []
    for name, item in value.items():
        if isinstance(item, dict) and item:
            found += _flat(item, f"{prefix}{name}.")
        else:
            found.append((prefix + name, item))
    return found
