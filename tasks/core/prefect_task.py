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
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.exceptions import TerminationSignal
from prefect.states import Cancelled, Completed
from prefect.tasks import exponential_backoff

from storage.artifacts.store import Artifact
from storage.config import Config
from storage.errors import InputError, LostWorkersError, StoreAwayError
from storage.wording import duration, progress_text
from tasks.core.context import TABLES
from tasks.core.loggers import heard_by
from tasks.core.markdown import is_prose, text_blocks
from tasks.core.pace import Pace
from tasks.core.runner import run_stage
from tasks.core.stage import RunContext, Stage, StageResult
from tasks.core.stopping import is_termination

log = logging.getLogger(__name__)

PROGRESS_SECONDS = 2.0
"""At most one progress update in this time: each is a request to the Prefect server."""

AWAY_SECONDS = 600.0
"""No progress is shown for so long after the server did not take it: each try waits a minute for it, and meanwhile
nobody reads what the trainer says."""


def run_as_task(
    stage: Stage,
    config: Config,
    inputs: Mapping[str, Artifact],
    context: RunContext,
    *,
    force: bool,
    after: Sequence[State[Any]],
    place: str = "",
) -> State[StageResult]:
    """Run a stage as a Prefect task and return its final state, whose result is a StageResult.

    An interrupt is raised on, after the task has ended in the state of that name.
    `after` holds the states of the stages that made the inputs: the UI draws them as dependencies. `place` stands
    before the progress: `stage 7 of 9`.
    """

    attempts = itertools.count(1)
    interrupts: list[BaseException] = []

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
        with heard_by(_RunLogHandler(get_run_logger())), _progress_in_the_run(stage, context, place) as watched:
            # A retry goes on with the parts that the forced first attempt has finished.
            resume = not force or next(attempts) > 1
            try:
                result = run_stage(stage, config, inputs, watched, force=force, resume=resume)
            except (KeyboardInterrupt, TerminationSignal) as error:
                interrupts.append(error)
                return stopped_state(error)
            _show_tables(stage, result.artifact)
        if result.cached:
            return Completed(name="Cached", message=f"{result.artifact.ref} is finished", data=result)
        return result

    state = run(return_state=True, wait_for=list(after))
    if interrupts:
        raise interrupts[0]
    return state


def stopped_state(error: BaseException) -> State[Any]:
    """Return the state of a run that was stopped: Interrupted by Ctrl-C, else Cancelled.

    The type is that of cancelled runs in both cases, since Prefect has no other for what somebody wanted.
    """
    going_on = "the next run continues from the parts that are finished"
    if isinstance(error, KeyboardInterrupt) and not is_termination(error):
        return Cancelled(name="Interrupted", message=f"interrupted with Ctrl-C; {going_on}")
    return Cancelled(message=f"cancelled; {going_on}")


def _may_heal(task: Any, task_run: Any, state: State[Any]) -> bool:
    error = state.data  # the exception itself: results are not persisted
    if isinstance(error, InputError | LostWorkersError | StoreAwayError):
        return False
    log.warning("%s failed and is tried again: %s", task.name, error)
    return True


class _RunLogHandler(logging.Handler):
    """Hands records to the logger of the task run, tracebacks included.

    Also from threads: those know neither the run nor Prefect's settings, so the task's context goes along.
    """

    def __init__(self, target: Any) -> None:
        super().__init__(logging.INFO)
        self.target = target
        self.context = contextvars.copy_context()

    def emit(self, record: logging.LogRecord) -> None:
        self.context.copy().run(self.target.log, record.levelno, "%s", self.format(record))


@contextlib.contextmanager
def _progress_in_the_run(stage: Stage, context: RunContext, place: str) -> Iterator[RunContext]:
    yield replace(context, progress=_ProgressArtifact(stage.name, place, context))


class _ProgressArtifact:
    """A progress bar in the UI, made at the first step, and the caller's own view of progress."""

    def __init__(self, stage: str, place: str, context: RunContext) -> None:
        self.stage = stage
        self.place = place
        self.inner = context.progress
        self.context = contextvars.copy_context()
        self.artifact: UUID | None = None
        self.shown_at = 0.0
        self.away_until = 0.0
        self.pace = Pace()

    def __call__(self, done: int, total: int, unit: str, note: str = "", /) -> None:
        self.inner(done, total, unit, note)
        clock = time.monotonic()
        rate, left = self.pace.of(done, total, unit)
        if total <= 0 or clock < self.away_until or (done < total and clock - self.shown_at < PROGRESS_SECONDS):
            return
        self.shown_at = clock
        pace = describe_pace(rate, left, unit)
        text = ", ".join(filter(None, [self.place, f"{self.stage}: {progress_text(done, total, unit)}", pace]))
        # Threads report progress too; the artifact must belong to the run in whose context the task began.
        self.context.copy().run(self._show, 100.0 * done / total, text)

    def _show(self, percent: float, description: str) -> None:
        try:
            if self.artifact is None:
                self.artifact = create_progress_artifact(  # type: ignore[assignment]
                    progress=percent, key=f"{self.stage}-progress", description=description
                )
            else:
                update_progress_artifact(self.artifact, progress=percent, description=description)
        except Exception as error:  # noqa: BLE001 - a picture of the work must not stop the work
            self.away_until = time.monotonic() + AWAY_SECONDS
            logging.getLogger(__name__).debug("progress was not shown: %s", error)


def describe_pace(rate: float | None, left: float | None, unit: str) -> str:
    """Return units per second and the seconds left in words; empty while they are unknown."""
    if rate is None or left is None:
        return ""
    per = f"{rate:,.1f} {unit} a second" if rate >= 1 else f"{duration(1 / rate)} for each of the {unit}"
    return f"{per}, about {duration(left)} left" if left > 0 else per


def _show_tables(stage: Stage, artifact: Artifact) -> None:
    tables = json.loads(artifact.report(TABLES) or b"{}")
    for title, rows in tables.items():
        key = f"{stage.name}-{''.join(c if c.isalnum() else '-' for c in title.lower())}".strip("-")
        about = f"### {title}\n`{artifact.ref}`"
        if is_prose(rows):
            create_markdown_artifact(key=key, markdown=f"{about}\n\n{text_blocks(rows)}", description=title)
        else:
            create_table_artifact(table=rows, key=key, description=about)
