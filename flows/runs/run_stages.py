"""The stages of a run, one after the other, and what is told of it."""

import contextlib
import shlex
import time
from collections.abc import Callable, Iterator, Mapping

from flows.chain import Step
from flows.planning import StagePlan, check_foreseen
from flows.runs.events import RunFinished, RunStarted, tell
from flows.runs.record import new_record, recorded
from flows.runs.request import Request, store_option
from flows.runs.stage_teller import StageTeller
from storage.artifacts.records import RunState
from storage.artifacts.store import Artifact
from tasks.core.context import Progress
from tasks.core.stage import StageResult
from tasks.core.stopping import reason_of, state_after, undisturbed

Execute = Callable[[Step, Mapping[str, Artifact], bool, Progress], StageResult]
"""Runs or finds one stage: (step, inputs, force, progress) -> result."""


def run_stages(request: Request, run_id: str, execute: Execute) -> dict[str, StageResult]:
    """Run the stages that the target needs, one after the other, and tell how it goes."""
    with _run_told(request, run_id, at_the_end=False) as results:
        for number, step in enumerate(request.steps, start=1):
            stage = StageTeller(run_id, step.stage.name, number, len(request.steps))
            inputs = {role: results[source].artifact for role, source in step.inputs.items()}
            with stage.told():
                result = execute(step, inputs, step.stage.name in request.force, stage.progress)
                results[step.stage.name] = result
                stage.finished(result)
            check_foreseen(request.steps, {name: found.artifact for name, found in results.items()})
    return results


def record_cached_run(request: Request, run_id: str, plans: list[StagePlan]) -> dict[str, StageResult]:
    """Record a run that had nothing to do; garbage collection and `pile show` go by run records."""
    with _run_told(request, run_id, at_the_end=True) as results:
        for number, plan in enumerate(plans, start=1):
            if plan.artifact is not None:
                result = StageResult(plan.artifact, cached=True, seconds=0.0)
                stage = StageTeller(run_id, plan.stage.name, number, len(plans))
                results[plan.stage.name] = result
                with stage.told():
                    stage.finished(result)
    return results


@contextlib.contextmanager
def _run_told(request: Request, run_id: str, *, at_the_end: bool) -> Iterator[dict[str, StageResult]]:
    """Tell of the beginning and the end of a run, whose results are put into what this yields."""
    results: dict[str, StageResult] = {}
    recipe = request.recipe
    run = new_record(request, run_id)
    started = time.monotonic()

    def finish(state: RunState, error: str = "") -> None:
        tell(
            RunFinished(
                run=run_id,
                recipe=recipe.name,
                state=state,
                seconds=round(time.monotonic() - started, 3),
                error=error,
                results={name: result.artifact.manifest.key for name, result in results.items()},
                next=next_command(request, state),
            )
        )

    with recorded(request.store, run, at_the_end=at_the_end):
        stages = tuple(step.stage.name for step in request.steps)
        tell(
            RunStarted(
                run=run_id, recipe=recipe.name, target=request.target, store=request.store.url, stages=stages
            )
        )
        try:
            yield results
        except BaseException as error:
            with undisturbed():
                finish(state_after(error), reason_of(error))
            raise
        finish("done")


def next_command(request: Request, state: RunState) -> str:
    """Return what to type next: what continues a run that stopped, or uses the result of one that is done."""
    if state != "done":
        return request.command
    where = store_option(request.store)
    if any(step.stage.result for step in request.steps):
        return f"pile generate {shlex.quote(request.recipe.name)} --prompt TEXT{where}"
    return f"pile show{where}"
