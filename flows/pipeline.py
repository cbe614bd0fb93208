"""The flow `pile-pipeline`: download, filter, dedup, train-tokenizer, tokenize, pack, train, evaluate, publish.

Each stage is a Prefect task that ends as `Cached` when the store holds its artifact. Which stages there are stands
in `flows/stages.py`, which of them a recipe runs follows in `flows/chain.py`; what one does stands in its folder
in `tasks/`.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State

from flows.chain import ALL, Step
from flows.runs.request import Request, new_run_id
from flows.runs.run_stages import run_stages
from flows.summary import summary_markdown
from storage.artifacts.store import Artifact
from tasks.core.context import Progress
from tasks.core.prefect_task import run_as_task
from tasks.core.stage import RunContext, StageResult

log = logging.getLogger(__name__)


@flow(name="pile-pipeline", flow_run_name="{recipe}-{target}", log_prints=False, persist_result=False)
def pile_pipeline(
    recipe: str = "demo",
    overrides: dict[str, Any] | None = None,
    target: str = ALL,
    force: list[str] | None = None,
    store: str | None = None,
) -> str:
    """Run a recipe up to a stage; finished artifacts are taken, never made twice.

    Args:
        recipe: Name of a recipe, or path of a .yaml or .json file.
        overrides: Fields to replace, as `{"train_tokenizer.vocab_size": 3000}`.
        target: The last stage wanted, or `all` for every stage that the recipe has on.
        force: Stages to run again although their artifact is finished.
        store: Folder or s3:// URL of the artifact store; PILE_STORE or `pile-store` if not given.

    Returns: the run's id; `pile show <id>` prints what it did.
    """
    request = Request.checked(recipe, overrides, target, force or [], store).under_way()
    run_id = new_run_id()
    logger = get_run_logger()
    logger.info("run %s: recipe %s up to %s, store %s", run_id, recipe, target, request.store.url)
    run_with_prefect(request, run_id)
    return run_id


def run_with_prefect(request: Request, run_id: str) -> dict[str, StageResult]:
    """Run the stages as Prefect tasks of the present flow run and show a summary of them."""
    context = RunContext(
        store=request.store,
        run_id=run_id,
        recipe=request.recipe.model_dump(mode="json"),
        execution=request.recipe.execution,
    )
    states: dict[str, State[StageResult]] = {}

    def execute(step: Step, inputs: Mapping[str, Artifact], force: bool, progress: Progress) -> StageResult:
        after = [states[name] for name in step.inputs.values()]
        watched = replace(context, progress=progress)
        state = run_as_task(step.stage, step.config, inputs, watched, force=force, after=after)
        states[step.stage.name] = state
        return state.result()

    results = run_stages(request, run_id, execute)
    create_markdown_artifact(
        key="run-summary", markdown=summary_markdown(request, run_id, results), description="What this run did"
    )
    return results
