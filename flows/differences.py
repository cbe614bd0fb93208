"""How what is asked for differs from what a store holds: the nearest finished artifact, the unfinished attempt."""

import json
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from storage.artifacts.attempts import Unfinished, unfinished_attempts
from storage.artifacts.records import Attempt, Manifest, Run
from storage.artifacts.store import Store
from storage.config import Config
from storage.wording import age
from tasks.core.stage import Stage, attempt_progress, input_identity

DIGEST = re.compile("[0-9a-f]{64}")

SHOWN_SETTINGS = 3
"""Up to so many changed settings are worth setting back to continue an attempt."""


@dataclass(frozen=True)
class Change:
    """A field that differs from the nearest finished artifact of the stage, or from an unfinished attempt."""

    field: str
    old: Any
    new: Any


@dataclass(frozen=True)
class AttemptPlan:
    """An unfinished attempt at a stage: the one that would be continued, else the nearest to what is asked for."""

    stage: Stage
    unfinished: Unfinished
    changes: list[Change]
    """In which it differs; without any it is continued."""

    @property
    def key(self) -> str:
        """Its key."""
        return self.unfinished.attempt.key

    @property
    def progress(self) -> str:
        """How far it came, such as `step 120 of 400`."""
        return attempt_progress(self.stage, self.unfinished.attempt.config, self.unfinished.parts)

    @property
    def age(self) -> float:
        """Seconds since it wrote its last part."""
        return max(0.0, time.time() - self.unfinished.changed)

    def __str__(self) -> str:
        """Say what is left behind and how to continue."""
        where = f"{self.stage.name}/{self.key}, {self.progress}, {age(self.age)} ago"
        if not self.changes:
            return f"continues {where}"
        text = f"an unfinished attempt is left, {where}; it differs in {changes_text(self.changes)}"
        section = f"{self.stage.config_field}."
        if len(self.changes) > SHOWN_SETTINGS or not all(c.field.startswith(section) for c in self.changes):
            return f"{text}, so that this run starts anew"
        back = " ".join(f"--set {change.field}={json.dumps(change.old)}" for change in self.changes)
        return f"{text}; to continue it: {back}"

    def to_json(self) -> dict[str, Any]:
        """Return the form of `pile plan --json`."""
        attempt = self.unfinished.attempt
        return {
            "key": self.key,
            "progress": self.progress,
            "parts": list(self.unfinished.parts),
            "age_seconds": round(self.age, 1),
            "run_id": attempt.run_id,
            "host": attempt.host,
            "continued": not self.changes,
            "changes": [asdict(change) for change in self.changes],
        }


@dataclass(frozen=True)
class Asked:
    """What a stage is asked for; inputs and sources None where they are not known yet."""

    stage: Stage
    config: Config
    inputs: dict[str, str] | None
    sources: dict[str, str] | None

    @cached_property
    def fields(self) -> dict[str, Any]:
        """What the key is made of, by name."""
        return _fields(self.stage, self.config.identity(), self.stage.version, self.inputs, self.sources)

    def changes(self, found: Manifest | Attempt) -> list[Change]:
        """Return in which fields it differs from what an artifact was, or is to be, built from."""
        # An older release may have counted fields as part of the key that are not.
        outside = self.config.outside_key()
        config = {name: value for name, value in found.config.items() if name not in outside}
        inputs = None if self.inputs is None else input_identity(self.stage, found.inputs)
        old = _fields(self.stage, config, found.version, inputs, None if self.sources is None else found.sources)
        return [
            Change(name, old.get(name), self.fields.get(name))
            for name in sorted({*old, *self.fields})
            if old.get(name) != self.fields.get(name)
        ]


class History:
    """What a store holds of a recipe, each thing read once and only if it is asked for."""

    def __init__(self, store: Store, recipe: str) -> None:
        self.store = store
        self.recipe = recipe

    @cached_property
    def _runs(self) -> list[Run]:
        return [run for run in self.store.runs() if run.recipe_name == self.recipe]

    @cached_property
    def _used(self) -> set[tuple[str, str]]:
        return {(stage.stage, stage.key) for run in self._runs for stage in run.stages}

    def manifests(self, stage: Stage) -> list[Manifest]:
        """Return the finished artifacts of a stage that the recipe built or took, oldest first."""
        found = list(self.store.manifests(stage.name))
        if not self.recipe or not found:
            return found
        return [
            manifest
            for manifest in found
            if manifest.recipe.get("name") == self.recipe or (manifest.stage, manifest.key) in self._used
        ]

    def attempts(self, stage: Stage) -> list[Unfinished]:
        """Return the unfinished attempts of the recipe at a stage, and of no recipe."""
        found = unfinished_attempts(self.store, stage.name)
        return [one for one in found if not self.recipe or one.attempt.recipe_name in ("", self.recipe)]

    def never_built(self) -> str:
        """Say that there is nothing to compare with."""
        if not self.recipe:
            return "was never built in this store"
        if not self._runs:
            return f"was never built: recipe {self.recipe} was never run in this store"
        return f"was never built for recipe {self.recipe} in this store"


def nearest(asked: Asked, manifests: Iterable[Manifest]) -> tuple[list[Change], Manifest | None]:
    """Compare with the finished artifact of the stage that differs in the fewest fields, the newest of those."""
    best: tuple[list[Change], Manifest | None] = ([], None)
    for manifest in manifests:
        changes = asked.changes(manifest)
        if best[1] is None or len(changes) <= len(best[0]):
            best = (changes, manifest)
    return best


def nearest_attempt(asked: Asked, history: History, key: str = "") -> AttemptPlan | None:
    """Return the unfinished attempt with this key, else the one that differs in the fewest fields."""
    found = [AttemptPlan(asked.stage, one, asked.changes(one.attempt)) for one in history.attempts(asked.stage)]
    if not key:  # what it reads is not known: that nothing else differs does not say that it is continued
        found = [one for one in found if one.changes]
    return min(found, key=lambda one: (one.key != key, len(one.changes), one.age), default=None)


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


def changes_text(changes: Sequence[Change], most: int = 8) -> str:
    """Return changes in one line: `train.micro_batch_size: 32 -> 16; ...`."""
    more = f"; and {len(changes) - most} more" if len(changes) > most else ""
    return "; ".join(f"{c.field}: {_short(c.old)} -> {_short(c.new)}" for c in changes[:most]) + more


def _short(value: Any) -> str:
    """Return a value; of a digest as much as tells it apart."""
    return f"{value:.12}..." if isinstance(value, str) and DIGEST.fullmatch(value) else repr(value)
