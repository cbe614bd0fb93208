"""One run of the pipeline: its request, its stages in order and its record in the store."""

import contextlib
import logging
import os
import secrets
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.chain import Step
from flows.planning import StagePlan
from flows.recipes.reading import find_recipe
from flows.recipes.schema import Recipe
from flows.stages import STAGES
from storage.artifacts.records import Run, RunStage, StageState, now
from storage.artifacts.store import Artifact, Store
from storage.errors import Fault, InputError
from tasks.core.stage import StageResult

log = logging.getLogger(__name__)

DEFAULT_STORE = "pile-store"

Execute = Callable[[Step, Mapping[str, Artifact], bool], StageResult]
"""Runs or finds one stage: (step, inputs, force) -> result."""


@dataclass(frozen=True)
class Request:
    """What was asked for, checked before any work."""

    recipe: Recipe
    target: str
    force: frozenset[str]
    store: Store
    steps: tuple[Step, ...]
    """What the target needs, in running order."""

    @classmethod
    def checked(
        cls,
        recipe: str,
        overrides: Mapping[str, Any] | None,
        target: str,
        force: Iterable[str],
        store: str | None,
    ) -> "Request":
        """Resolve names. Raises: InputError for anything that does not exist or cannot be."""
        found = find_recipe(recipe, overrides)
        steps = found.steps(target)
        needed = [step.stage.name for step in steps]
        forced = frozenset(force)
        for name in sorted(forced):
            STAGES.get(name)
        if unneeded := forced.difference(needed):
            raise InputError(
                f"a forced stage must be one that {target} needs ({', '.join(needed)}), "
                f"found {', '.join(sorted(unneeded))}; choose another target or switch it on"
            )
        return cls(found, target, forced, open_store(store), steps)

    def under_way(self) -> "Request":
        """Return the request with a store that is waited for when it is away, after a look that it answers now.

        Raises: InputError for what the user must set; StoreAwayError, Fault or OSError in less than a minute.
        """
        return replace(self, store=self.store.patient(60 * self.recipe.execution.store_patience_minutes))


def open_store(url: str | None) -> Store:
    """Open the given store, or the one of PILE_STORE, or `pile-store` in the present folder."""
    return Store(url or os.environ.get("PILE_STORE") or str(Path.cwd() / DEFAULT_STORE))


def new_run_id() -> str:
    """Return a name for a run that sorts by time."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"


def run_stages(request: Request, run_id: str, execute: Execute) -> dict[str, StageResult]:
    """Run the stages that the target needs, one after the other, keeping the run record up to date."""
    record = _RunRecord(request, run_id)
    results: dict[str, StageResult] = {}
    try:
        for step in request.steps:
            name = step.stage.name
            record.update(name, "running")
            inputs = {role: results[source].artifact for role, source in step.inputs.items()}
            result = execute(step, inputs, name in request.force)
            results[name] = result
            log.info("%s: %s in %.1f s", name, "cached" if result.cached else "done", result.seconds)
            record.update(name, "cached" if result.cached else "done", result)
    except BaseException as error:
        record.fail(error)
        raise
    record.finish()
    return results


def record_cached_run(request: Request, run_id: str, plans: list[StagePlan]) -> dict[str, StageResult]:
    """Record a run that had nothing to do; garbage collection and `pile show` go by run records."""
    results = {
        plan.stage.name: StageResult(plan.artifact, cached=True, seconds=0.0)
        for plan in plans
        if plan.artifact is not None
    }
    record = _RunRecord(request, run_id, quiet=True)
    for name, result in results.items():
        record.update(name, "cached", result)
    record.finish()
    return results


class _RunRecord:
    """Writes `runs/<run-id>.json` again at every step: who looks sees how far the run is."""

    def __init__(self, request: Request, run_id: str, *, quiet: bool = False) -> None:
        self.store = request.store
        self.quiet = quiet
        self.stages: dict[str, RunStage] = {}
        self.run = Run(
            run_id=run_id,
            recipe_name=request.recipe.name,
            recipe=request.recipe.model_dump(mode="json"),
            target=request.target,
            state="running",
            stages=(),
            host=socket.gethostname(),
            started=now(),
        )

    def update(self, stage: str, state: StageState, result: StageResult | None = None) -> None:
        artifact = result.artifact if result else None
        self.stages[stage] = RunStage(
            stage=stage,
            key=artifact.manifest.key if artifact else "",
            state=state,
            seconds=round(result.seconds, 3) if result else 0.0,
            content_digest=artifact.content_digest if artifact else "",
        )
        if not self.quiet:
            self._write()

    def fail(self, error: BaseException) -> None:
        last = list(self.stages.values())[-1:]
        for stage in last:
            if stage.state == "running":
                self.stages[stage.stage] = stage.model_copy(update={"state": "failed"})
        self.store.stop_waiting()
        message = f"{type(error).__name__}: {error}"
        self.run = self.run.model_copy(update={"state": "failed", "finished": now(), "error": message})
        with contextlib.suppress(OSError, Fault, InputError):  # what stopped the run may stop its record too
            self._write()

    def finish(self) -> None:
        self.run = self.run.model_copy(update={"state": "done", "finished": now()})
        self._write()

    def _write(self) -> None:
        self.run = self.run.model_copy(update={"stages": tuple(self.stages.values())})
        self.store.write_run(self.run)
