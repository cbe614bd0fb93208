"""A stage as a Prefect task: its states, retries, log lines, progress and tables in the UI.

The only file below `flows/` that imports Prefect. Prefect never decides what is skipped: the store does, and
a stage whose artifact is there ends in the state `Cached`.
"""

import contextlib
import contextvars
import itertools
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from prefect import get_run_logger, task
from prefect.artifacts import (
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed
from prefect.tasks import exponential_backoff

from storage.artifacts.store import Artifact
from storage.config import Config
from storage.errors import InputError, LostWorkersError, StoreAwayError
from tasks.core.context import TABLES
from tasks.core.loggers import LOGGERS
from tasks.core.runner import run_stage
from tasks.core.stage import RunContext, Stage, StageResult

log = logging.getLogger(__name__)

PROGRESS_SECONDS = 2.0
"""At most one progress update in this time: each is a request to the Prefect server."""


def run_as_task(
    stage: Stage,
    config: Config,
    inputs: Mapping[str, Artifact],
    context: RunContext,
    *,
    force: bool,
    after: Sequence[State[Any]],
) -> State[StageResult]:
    """Run a stage as a Prefect task and return its final state, whose result is a StageResult.

    `after` holds the states of the stages that made the inputs: the UI draws them as dependencies.
    """

    attempts = itertools.count(1)

    @task(
        name=stage.name,
        task_run_name=stage.name,
        cache_policy=NO_CACHE,
        persist_result=False,
        retries=stage.retries,
        retry_delay_seconds=exponential_backoff(backoff_factor=2),
        retry_jitter_factor=0.5,
        retry_condition_fn=_may_heal,
    )
    def run() -> Any:
        with _log_lines_in_the_run(), _progress_in_the_run(stage, context) as watched:
            # A retry goes on with the parts that the forced first attempt has finished.
            resume = not force or next(attempts) > 1
            result = run_stage(stage, config, inputs, watched, force=force, resume=resume)
            _show_tables(stage, result.artifact)
        if result.cached:
            return Completed(name="Cached", message=f"{result.artifact.ref} is finished", data=result)
        return result

    return run(return_state=True, wait_for=list(after))


def _may_heal(task: Any, task_run: Any, state: State[Any]) -> bool:
    error = state.data  # the exception itself: results are not persisted
    if isinstance(error, InputError | LostWorkersError | StoreAwayError):
        return False
    log.warning("%s failed and is tried again: %s", task.name, error)
    return True


@contextlib.contextmanager
def _log_lines_in_the_run() -> Iterator[None]:
    handler = _RunLogHandler(get_run_logger())
    loggers = [logging.getLogger(name) for name in LOGGERS]
    for logger in loggers:
        logger.addHandler(handler)
        if logger.getEffectiveLevel() > logging.INFO:
            logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)


class _RunLogHandler(logging.Handler):
    """Hands records to the logger of the task run.

    Also from threads: those know neither the run nor Prefect's settings, so the task's context goes along.
    """

    def __init__(self, target: Any) -> None:
        super().__init__(logging.INFO)
        self.target = target
        self.context = contextvars.copy_context()

    def emit(self, record: logging.LogRecord) -> None:
        self.context.copy().run(self.target.log, record.levelno, "%s", record.getMessage())


@contextlib.contextmanager
def _progress_in_the_run(stage: Stage, context: RunContext) -> Iterator[RunContext]:
    yield replace(context, progress=_ProgressArtifact(stage.name, context))


class _ProgressArtifact:
    """A progress bar in the UI, made at the first step, and the caller's own view of progress."""

    def __init__(self, stage: str, context: RunContext) -> None:
        self.stage = stage
        self.inner = context.progress
        self.context = contextvars.copy_context()
        self.artifact: UUID | None = None
        self.shown_at = 0.0

    def __call__(self, done: int, total: int, unit: str, note: str = "", /) -> None:
        self.inner(done, total, unit, note)
        finished = done >= total
        if total <= 0 or (not finished and time.monotonic() - self.shown_at < PROGRESS_SECONDS):
            return
        self.shown_at = time.monotonic()
        # Threads report progress too; the artifact must belong to the run in whose context the task began.
        self.context.copy().run(self._show, 100.0 * done / total, f"{self.stage}: {done} of {total} {unit}")

    def _show(self, percent: float, description: str) -> None:
        try:
            if self.artifact is None:
                self.artifact = create_progress_artifact(  # type: ignore[assignment]
                    progress=percent, key=f"{self.stage}-progress", description=description
                )
            else:
                update_progress_artifact(self.artifact, progress=percent, description=description)
        except Exception as error:  # noqa: BLE001 - a picture of the work must not stop the work
            logging.getLogger(__name__).debug("progress was not shown: %s", error)


def _show_tables(stage: Stage, artifact: Artifact) -> None:
    tables = json.loads(artifact.report(TABLES) or b"{}")
    for title, rows in tables.items():
        key = f"{stage.name}-{''.join(c if c.isalnum() else '-' for c in title.lower())}".strip("-")
        create_table_artifact(table=rows, key=key, description=f"### {title}\n`{artifact.ref}`")
