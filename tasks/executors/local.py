"""Run the same work over many shards with a datatrove executor.

Which shards are left to do is decided by the committed parts of the artifact, never by datatrove's own
completion files: those say that a rank finished, not with which input and settings.
"""

import contextlib
import copy
import logging
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from datatrove.executor import LocalPipelineExecutor
from datatrove.executor import base as executor_base
from datatrove.io import DataFolder
from datatrove.pipeline.base import PipelineStep
from datatrove.utils.stats import PipelineStats
from loguru import logger as loguru_logger

from tasks.core.context import StageContext
from tasks.core.loggers import heard_by
from tasks.executors.worker_pool import run_in_workers

log = logging.getLogger("datatrove")

ItemT = TypeVar("ItemT")

POLL_SECONDS = 0.5
LOG_FORMAT = "{time:YYYY-MM-DD HH:mm:ss.SSS} | {level: <8} | {name}:{function}:{line} - {message}"
LOG_LINE = re.compile(r"^\d{4}-\d\d-\d\d \S+ \| (?P<level>\w+) +\| \S+ - (?P<message>.*)$")


def for_each_shard(
    context: StageContext,
    items: Sequence[ItemT],
    work: Callable[[ItemT], None],
    name: Callable[[ItemT], str] = str,
) -> None:
    """Call `work` for each item, in worker processes; both must be picklable. `name` is for messages.

    An item whose worker is killed is worked on again from its beginning, whatever was done of it.
    Raises: whatever `work` raised first; the other items in flight are abandoned, uncommitted. Fault if an item
    cost more than one worker.
    """
    run_datatrove(context, [_ForEach(tuple(items), work)], [name(item) for item in items])


def run_datatrove(
    context: StageContext, pipeline: list[PipelineStep | Callable[..., Any]], shards: Sequence[str]
) -> None:
    """Run a datatrove pipeline with one task for each named shard and forward its log lines and progress."""
    tasks = len(shards)
    if not tasks:
        return
    folder = context.writer.scratch() / "datatrove"
    shutil.rmtree(folder, ignore_errors=True)
    executor = _QuietExecutor(
        pipeline,
        tasks=tasks,
        workers=min(context.workers, tasks),
        logging_dir=str(folder),
        skip_completed=False,
    )
    executor.names = [f"{context.writer.stage} of {shard}" for shard in shards]
    _LOG.detach()  # our own log carries these lines, once
    try:
        with _watched(context, folder, tasks):
            executor.run()
    finally:
        _LOG.detach()  # datatrove gives it the console again
    shutil.rmtree(folder, ignore_errors=True)


class _ForEach(Generic[ItemT]):
    """A datatrove step that hands the item of its rank to a function."""

    def __init__(self, items: tuple[ItemT, ...], work: Callable[[ItemT], None]) -> None:
        self.items = items
        self.work = work

    def __repr__(self) -> str:
        return type(self.work).__name__

    def __call__(self, data: Any, rank: int, world_size: int) -> Iterable[Any]:
        self.work(self.items[rank])
        return ()


class _QuietExecutor(LocalPipelineExecutor):
    """The local executor, with workers that may be killed, and without a copy of log lines on the console."""

    pipeline: list[Any]
    names: list[str]
    """What each rank does, for messages."""

    def run(self) -> PipelineStats:
        """Run all tasks, in worker processes if there are to be several.

        Not the inherited `run`: it waits for ever for a task whose worker was killed, its workers outlive us, and
        it starts a manager process for a counter that nobody reads.
        """
        if self.workers == 1:
            pipeline, stats = self.pipeline, []
            for rank in range(self.tasks):
                self.pipeline = copy.deepcopy(pipeline)  # steps keep counts of their rank
                stats.append(self._run_for_rank(rank))
        else:
            stats = run_in_workers(
                self._run_in_worker,
                range(self.tasks),
                self.workers,
                name=lambda rank: self.names[rank],
                start_method=self.start_method,
            )
        return sum(stats, start=PipelineStats())

    def _run_in_worker(self, rank: int) -> PipelineStats:
        # What libraries print stands in no order among the lines of other workers, and breaks those that grow.
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere), heard_by(_ToTaskLog()):
            return self._run_for_rank(rank)

    def _run_for_rank(self, rank: int, local_rank: int = 0, node_rank: int = -1) -> PipelineStats:
        executor_base.add_task_logger, executor_base.close_task_logger = _log_to_file, _close_log  # no setting
        return super()._run_for_rank(rank, local_rank, node_rank)


class _ToTaskLog(logging.Handler):
    """Writes warnings of ours into datatrove's log of a rank, from which the parent takes them.

    Errors too, as warnings: of errors the parent takes none, since the one that ends a rank is raised.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, on one line."""
        loguru_logger.warning(" ".join(record.getMessage().split()))


class _RankLog:
    """What loguru writes to in this process: the log file of one rank after the other.

    Each handler that loguru makes takes 10 ms, as long as a megabyte of text in the filter.
    """

    def __init__(self) -> None:
        self._file: Any = None
        self._process = 0

    def attach(self, file: Any) -> None:
        """Write to this file from now on."""
        self._file = file
        if self._process != os.getpid():
            self.detach()
            loguru_logger.add(self.write, level="DEBUG", format=LOG_FORMAT)
            self._process = os.getpid()

    def detach(self) -> None:
        """Write nowhere, nor to the console."""
        loguru_logger.remove()
        self._process = 0

    def write(self, line: str) -> None:
        self._file.write(line)
        self._file.flush()


_LOG = _RankLog()


def _log_to_file(logging_dir: DataFolder, rank: int, *_: Any, **__: Any) -> Any:
    """Do what datatrove's `add_task_logger` does, without the copy of every line on standard error."""
    log_file = logging_dir.open(f"logs/task_{rank:05d}.log", "w")
    _LOG.attach(log_file)
    loguru_logger.info(f"Launching pipeline for {rank=}")
    return log_file


def _close_log(log_file: Any) -> None:
    """Do what datatrove's `close_task_logger` does, without making a handler for the console."""
    loguru_logger.complete()
    log_file.close()


@contextlib.contextmanager
def _watched(context: StageContext, folder: Path, tasks: int) -> Iterator[None]:
    watcher = _Watcher(context, folder, tasks)
    thread = threading.Thread(target=watcher.run, name="datatrove-log", daemon=True)
    thread.start()
    try:
        yield
    finally:
        watcher.stop.set()
        thread.join()


class _Watcher:
    """Follows the log files of the tasks and counts those that are complete."""

    def __init__(self, context: StageContext, folder: Path, tasks: int) -> None:
        self.context = context
        self.logs = [folder / "logs" / f"task_{rank:05d}.log" for rank in range(tasks)]
        self.completions = [folder / "completions" / f"{rank:05d}" for rank in range(tasks)]
        self.offsets: dict[Path, int] = {}
        self.stop = threading.Event()

    def run(self) -> None:
        shown = -1
        while True:
            last_round = self.stop.wait(POLL_SECONDS)
            for path in self.logs:
                self._forward(path)
            done = sum(path.exists() for path in self.completions)
            if done != shown:
                shown = done
                self.context.progress(done, len(self.logs), "shards")
            if last_round:
                return

    def _forward(self, path: Path) -> None:
        try:
            with path.open(errors="replace") as file:
                offset = self.offsets.get(path, 0)
                # Shorter than it was: its worker was killed, and another one writes it anew.
                file.seek(offset if offset <= path.stat().st_size else 0)
                for line in file:
                    if match := LOG_LINE.match(line):
                        level = match["level"].replace("SUCCESS", "INFO")
                        message = match["message"].strip()
                        if message and level not in ("DEBUG", "ERROR"):  # the error itself is raised
                            task = f"{self.context.writer.stage} {path.stem}"
                            log.log(logging.getLevelName(level), "%s: %s", task, message)
                self.offsets[path] = file.tell()
        except FileNotFoundError:
            return
