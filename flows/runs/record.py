"""The record and the log of a run in the store: who sees the store sees how far the run is, and can stop it."""

import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from flows.runs.events import (
    Event,
    Logged,
    RunFinished,
    StageFinished,
    StageProgress,
    StageStarted,
    listening,
    tell,
)
from flows.runs.log_lines import early_lines, hearing
from flows.runs.request import Request
from storage.artifacts.processes import host_identity, start_of_process
from storage.artifacts.records import Run, RunStage, RunState, now
from storage.artifacts.run_log import RunLog
from storage.artifacts.store import Store
from storage.errors import Fault, InputError
from storage.wording import duration

log = logging.getLogger(__name__)

BEAT_SECONDS = 5.0
"""How often a run looks whether it is to stop, and writes down how far it is if that has changed."""

ALIVE_SECONDS = 30.0
"""A run writes its record at least this often."""

SILENT_SECONDS = 180.0
"""A run on another machine that was not heard of for this long has crashed: it may miss some beats."""


def new_record(request: Request, run_id: str) -> Run:
    """Return the record of a run of this process that is about to begin."""
    return Run(
        run_id=run_id,
        recipe_name=request.recipe.name,
        recipe=request.recipe.model_dump(mode="json"),
        target=request.target,
        state="running",
        stages=(),
        host=socket.gethostname(),
        started=now(),
        of=len(request.steps),
        command=request.command,
        machine=host_identity(),
        process_id=os.getpid(),
        process_start=start_of_process(os.getpid()),
    )


def state_of(run: Run) -> RunState:
    """Return the state of a run as it is now: one that was killed could not write that down."""
    if run.state != "running":
        return run.state
    if run.machine == host_identity() and run.process_start:  # not every system tells when a process started
        return "running" if start_of_process(run.process_id) == run.process_start else "crashed"
    heard = datetime.fromisoformat(run.updated or run.started)
    return "running" if (datetime.now(UTC) - heard).total_seconds() < SILENT_SECONDS else "crashed"


@contextlib.contextmanager
def recorded(store: Store, run: Run, *, at_the_end: bool = False) -> Iterator[None]:
    """Keep the record and the log of a run of this process while it goes on.

    With `at_the_end` both are written once: of a run that has nothing to do nobody could see more.
    What was logged before, and kept, comes first in the log.
    Raises: OSError or Fault if the store cannot be written at the beginning or the end of a stage.
    """
    keeper = _Keeper(store, run, at_the_end=at_the_end)
    for line in early_lines(run.run_id):
        keeper.hear(line)
    with listening(keeper.hear), hearing(run.run_id, tell), contextlib.ExitStack() as stack:
        stack.callback(keeper.end)
        if not at_the_end:
            keeper.begin()
        yield


class _Keeper:
    """Hears what happens in a run and writes it down: at once what matters, in a thread how far it is.

    What is known changes under `knowing`, which nobody holds for long; `writing` is held while the store is
    written, which may wait for the store and log that it does.
    """

    def __init__(self, store: Store, run: Run, *, at_the_end: bool) -> None:
        self.store = store
        self.run = run
        self.at_the_end = at_the_end
        self.stages: dict[str, RunStage] = {}
        self.log = RunLog(store, run.run_id)
        self.changed = False
        self.written = 0.0
        self.ended = threading.Event()
        self.knowing = threading.Lock()
        self.writing = threading.Lock()
        self.thread = threading.Thread(target=self._beat, name="run-record", daemon=True)

    def begin(self) -> None:
        self._write()
        self.thread.start()

    def end(self) -> None:
        """Write down what is left; what stopped the run may stop its record too."""
        self.ended.set()
        if self.thread.is_alive():
            self.thread.join(BEAT_SECONDS)
        with contextlib.suppress(OSError, Fault, InputError):
            self.log.flush()
            if not self.at_the_end:
                self.store.forget_wish(self.run.run_id)

    def hear(self, event: Event) -> None:
        if event.run != self.run.run_id:
            return  # another run of this process
        if line := log_line(event):
            self.log.add(line)
        if isinstance(event, StageStarted):
            self._know(event.stage, RunStage(stage=event.stage, key="", state="running", started=event.time))
            self._write()
        elif isinstance(event, StageProgress):
            self._come_further(event)
        elif isinstance(event, StageFinished):
            end = {"state": event.state, "key": event.key, "content_digest": event.content_digest}
            self._change(event.stage, {**end, "seconds": round(event.seconds, 3)})
            if event.state in ("done", "cached"):  # the end of any other is written with that of its run
                self._write()
        elif isinstance(event, RunFinished):
            self._finish(event)

    def _finish(self, event: RunFinished) -> None:
        if event.state != "done":
            self.store.stop_waiting()
        with self.knowing:
            end = {"state": event.state, "finished": event.time, "error": event.error}
            self.run = self.run.model_copy(update=end)
        with contextlib.suppress(OSError, Fault, InputError):
            self.log.flush()  # whoever follows the log stops when the record says that the run has ended
        with contextlib.suppress(*(() if event.state == "done" else (OSError, Fault, InputError))):
            self._write()

    def _come_further(self, event: StageProgress) -> None:
        how_far = {
            "done": event.done,
            "total": event.total,
            "unit": event.unit,
            "note": event.note,
            "eta_seconds": event.eta_seconds,
        }
        self._change(event.stage, how_far)
        self.changed = True

    def _know(self, name: str, stage: RunStage) -> None:
        with self.knowing:
            self.stages[name] = stage

    def _change(self, name: str, fields: dict[str, Any]) -> None:
        with self.knowing:
            self.stages[name] = self.stages[name].model_copy(update=fields)

    def _beat(self) -> None:
        is_told = False
        while not self.ended.wait(BEAT_SECONDS):
            try:
                self.log.flush()
                if self.changed or time.monotonic() - self.written > ALIVE_SECONDS:
                    self._write()
                if not is_told and self.store.is_to_stop(self.run.run_id):
                    is_told = True  # once: a second signal would cut the last checkpoint short
                    log.info("somebody asked this run to stop")
                    os.kill(os.getpid(), signal.SIGTERM)
            except Exception as error:  # noqa: BLE001 - the stages notice by themselves if the store stays away
                log.debug("the record of the run was not written: %s", error)

    def _write(self) -> None:
        with self.writing:
            with self.knowing:
                if self.at_the_end and self.run.state == "running":
                    return
                self.changed = False
                self.run = self.run.model_copy(update={"stages": tuple(self.stages.values()), "updated": now()})
                run = self.run
            self.store.write_run(run)
            self.written = time.monotonic()


def log_line(event: Event) -> str:
    """Return what the log says of an event; empty for what would fill it."""
    if isinstance(event, Logged):
        return f"{event.time} {event.level:7} {event.logger}: {event.message}"
    if isinstance(event, StageStarted):
        return f"{event.time} stage {event.number} of {event.of}, {event.stage}, begins"
    if isinstance(event, StageFinished):
        end = f"{event.state}, {duration(event.seconds)}"
        return f"{event.time} stage {event.number} of {event.of}, {event.stage}: {end}"
    if isinstance(event, RunFinished):
        return f"{event.time} run {event.run}: {event.state}{f': {event.error}' if event.error else ''}"
    return ""
