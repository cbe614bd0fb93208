"""The flow `pile-pipeline`: download, filter, dedup, train-tokenizer, tokenize, pack, train, evaluate, publish.

Each stage is a Prefect task that ends as `Cached` when the store holds its artifact. Which stages there are stands
in `flows/stages.py`, which of them a recipe runs follows in `flows/chain.py`; what one does stands in its folder
in `tasks/`.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.exceptions import TerminationSignal
from prefect.runtime import flow_run

from flows.chain import ALL, Step
from flows.parameters import RecipeName, StageName, TargetName, introduce, run_name
from flows.run_report import Report, failure
from flows.runs.log_lines import kept_until_the_run_begins
from flows.runs.request import Request, new_run_id
from flows.runs.run_stages import run_stages
from storage.artifacts.store import Artifact
from tasks.core.context import Progress
from tasks.core.prefect_task import run_as_task, stopped_state
from tasks.core.stage import RunContext, StageResult


def _run_name() -> str:
    return run_name(**flow_run.parameters)


@flow(name="pile-pipeline", flow_run_name=_run_name, log_prints=False, persist_result=False)
def pile_pipeline(
    recipe: RecipeName = "demo",
    overrides: dict[str, Any] | None = None,
    target: TargetName = ALL,
    force: list[StageName] | None = None,
    store: str | None = None,
) -> Any:
    """Run a recipe up to a stage; finished artifacts are taken, never made twice.

    Args:
        recipe: Name of a recipe, or path of a .yaml or .json file.
        overrides: Fields to replace, as `{"train_tokenizer.vocab_size": 3000}`.
        target: The last stage wanted, or `all` for every stage that the recipe has on.
        force: Stages to run again although their artifact is finished.
        store: Folder or s3:// URL of the artifact store; PILE_STORE or `pile-store` if not given.

    Returns: the run's id, of which `pile show <id>` prints what it did; if it was stopped, the state of that name.
    """
    with kept_until_the_run_begins():
        return _run(recipe, overrides, target, force or [], store)


def _run(recipe: str, overrides: dict[str, Any] | None, target: str, force: list[str], store: str | None) -> Any:
    introduce(recipe, overrides, target, force)
    try:
        request = Request.checked(recipe, overrides, target, force, store).under_way()
    except Exception as error:
        _show(failure(error))
        raise
    run_id = new_run_id()
    logger = get_run_logger()
    logger.info("run %s: recipe %s up to %s, store %s", run_id, recipe, target, request.store.url)
    try:
        run_with_prefect(request, run_id)
    except (KeyboardInterrupt, TerminationSignal) as error:
        _stopped.append(error)
        return stopped_state(error)
    return run_id


_stopped: list[BaseException] = []


def what_stopped() -> BaseException | None:
    """Return, once, the signal that ended the last flow run of this process in Interrupted or Cancelled."""
    return _stopped.pop() if _stopped else None


def run_with_prefect(request: Request, run_id: str) -> dict[str, StageResult]:
    """Run the stages as Prefect tasks of the present flow run and show a summary, however it ends."""
    context = RunContext(
        store=request.store,
        run_id=run_id,
        recipe=request.recipe.model_dump(mode="json"),
        execution=request.recipe.execution,
    )
    states: dict[str, State[StageResult]] = {}
    report = Report(request, run_id)

    def execute(step: Step, inputs: Mapping[str, Artifact], force: bool, progress: Progress) -> StageResult:
        """Run one stage: it begins here, and ends with the return or an exception."""
        name = step.stage.name
        after = [states[source] for source in step.inputs.values()]
        place = report.begins(name)
        watched = replace(context, progress=report.watch(progress))
        state = run_as_task(step.stage, step.config, inputs, watched, force=force, after=after, place=place)
        states[name] = state
        report.results[name] = state.result()
        return report.results[name]

    try:
        results = run_stages(request, run_id, execute)
    except BaseException as error:
        report.ended = error
        with contextlib.suppress(Exception):  # what stopped the run may stop its summary too
            _show(report.markdown())
        raise
    _show(report.markdown())
    return results


def _show(markdown: str) -> None:
    create_markdown_artifact(key="run-summary", markdown=markdown, description="What this run did")
