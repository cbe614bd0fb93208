"""What a run would do, and why. Reads the store and the checksums of the sources; writes nothing."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from flows.chain import Step
from flows.differences import Asked, AttemptPlan, Change, History, nearest, nearest_attempt
from storage.artifacts.store import Artifact, Store
from storage.errors import InputError
from storage.wording import minute
from tasks.core.stage import Stage, input_identity, stage_key


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
    attempt: AttemptPlan | None = None
    """What an earlier run left unfinished of it."""
    problem: str = ""
    """Why it cannot succeed with the inputs that exist already; a run stops before it builds anything more."""

    def to_json(self) -> dict[str, Any]:
        """Return the form of `pile plan --json`."""
        return {
            "stage": self.stage.name,
            "state": self.state,
            "key": self.key,
            "changes": [asdict(change) for change in self.changes],
            "attempt": self.attempt.to_json() if self.attempt else None,
            "problem": self.problem,
        }


def make_plan(
    steps: Sequence[Step], store: Store, force: Collection[str] = (), recipe: str = ""
) -> list[StagePlan]:
    """Say of each step, given in running order: cached, to run, or waiting for an upstream result.

    With the name of a recipe a stage is compared with what was built for that recipe only: how it differs from
    that of another one explains nothing.

    Raises: Fault if the store or the source's checksums cannot be read.
    """
    history = History(store, recipe)
    plans: dict[str, StagePlan] = {}
    for step in steps:
        stage, config = step.stage, step.config
        upstream = {role: plans[name] for role, name in step.inputs.items()}
        waiting_for = [plan.stage.name for plan in upstream.values() if plan.artifact is None]
        if waiting_for:
            asked = Asked(stage, config, None, None)
            changes, _ = nearest(asked, history.manifests(stage))
            reason = f"waits for the result of {', '.join(waiting_for)}"
            attempt = nearest_attempt(asked, history)
            known = {role: plan.artifact for role, plan in upstream.items() if plan.artifact is not None}
            problem = foreseen(step, known)
            plans[stage.name] = StagePlan(stage, "waiting", None, reason, changes, None, attempt, problem)
        else:
            inputs = {role: plan.artifact for role, plan in upstream.items() if plan.artifact is not None}
            plans[stage.name] = _plan_stage(step, inputs, history, forced=stage.name in force)
    return list(plans.values())


def foreseen(step: Step, inputs: Mapping[str, Artifact]) -> str:
    """Say why a step cannot succeed with those of its inputs that exist, by name; empty if nothing is known."""
    if step.stage.foresee is None or not inputs:
        return ""
    try:
        step.stage.foresee(step.config, inputs)
    except InputError as error:
        return str(error)
    return ""


def check_foreseen(steps: Sequence[Step], artifacts: Mapping[str, Artifact]) -> None:
    """Stop a run before it builds what a later stage could not use.

    `artifacts` are the results so far by stage; steps that have one are not asked.
    Raises: InputError for the first step that cannot succeed with what it will be given.
    """
    for step in steps:
        if step.stage.name in artifacts:
            continue
        inputs = {role: artifacts[name] for role, name in step.inputs.items() if name in artifacts}
        if problem := foreseen(step, inputs):
            raise InputError(f"{step.stage.name} cannot succeed, so the run stops before it: {problem}")


def attempt_lines(plans: Iterable[StagePlan]) -> list[str]:
    """Return the first lines of a run: what it continues, and what it leaves behind."""
    return [f"{plan.stage.name}: {plan.attempt}" for plan in plans if plan.attempt is not None]


def _plan_stage(step: Step, inputs: dict[str, Artifact], history: History, *, forced: bool) -> StagePlan:
    stage, config = step.stage, step.config
    sources = dict(stage.sources(config)) if stage.sources else {}
    identity = input_identity(stage, {role: artifact.reference for role, artifact in inputs.items()})
    key = stage_key(stage, config, identity, sources)
    if not forced and (artifact := history.store.find(stage.name, key)):
        return StagePlan(stage, "cached", key, f"finished {minute(artifact.manifest.finished)}", artifact=artifact)
    asked = Asked(stage, config, identity, sources)
    attempt, problem = nearest_attempt(asked, history, key), foreseen(step, inputs)
    if forced:
        return StagePlan(stage, "run", key, "forced", attempt=attempt, problem=problem)
    changes, found = nearest(asked, history.manifests(stage))
    if attempt is not None and not attempt.changes:
        return StagePlan(stage, "run", key, "is unfinished", [], attempt=attempt, problem=problem)
    if found is None:
        reason = "was never built with these settings" if attempt else history.never_built()
    else:
        reason = f"differs from {stage.name}/{found.key}, the nearest finished artifact"
    return StagePlan(stage, "run", key, reason, changes, attempt=attempt, problem=problem)
