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

import multiprocess  # datatrove's: pickles functions of __main__ too
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.utils.stats import PipelineStats
from loguru import logger as loguru_logger

from tasks.core.context import StageContext

log = logging.getLogger("datatrove")

ItemT = TypeVar("ItemT")

POLL_SECONDS = 0.5
LOG_LINE = re.compile(r"^\d{4}-\d\d-\d\d \S+ \| (?P<level>\w+) +\| \S+ - (?P<message>.*)$")


def for_each_shard(context: StageContext, items: Sequence[ItemT], work: Callable[[ItemT], None]) -> None:
    """Call `work` once per item, in worker processes; both must be picklable.

    Raises: whatever `work` raised first; the other items in flight are abandoned, uncommitted.
    """
    run_datatrove(context, [_ForEach(tuple(items), work)], tasks=len(items))


def run_datatrove(context: StageContext, pipeline: list[PipelineStep | Callable[..., Any]], tasks: int) -> None:
    """Run a datatrove pipeline with one task per shard and forward its log lines and progress."""
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
    loguru_logger.remove()  # our own log carries these lines, once
    with _watched(context, folder, tasks):
        executor.run()
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
    """The local executor, with workers that end with us, and without a second copy of log lines on the console."""

    pipeline: list[Any]

    def run(self) -> PipelineStats:
        """Run all tasks, in worker processes if there are to be several.

        Not the inherited `run`: it gives its pool no initializer, and starts a manager process for a counter that
        nobody reads. Killed, we would leave both behind.
        """
        if self.workers == 1:
            pipeline, stats = self.pipeline, []
            for rank in range(self.tasks):
                self.pipeline = copy.deepcopy(pipeline)  # steps keep counts of their rank
                stats.append(self._run_for_rank(rank))
        else:
            context = multiprocess.get_context(self.start_method)
            with context.Pool(self.workers, initializer=_end_with_parent) as pool:
                stats = list(pool.imap_unordered(self._run_for_rank, range(self.tasks)))
        return sum(stats, start=PipelineStats())

    def _run_for_rank(self, rank: int, local_rank: int = 0, node_rank: int = -1) -> PipelineStats:
        with contextlib.redirect_stderr(_Nowhere()):
            return super()._run_for_rank(rank, local_rank, node_rank)


def _end_with_parent() -> None:
    """Make this worker end when the process that made the pool does, however that ends.

    A worker that waits for its turn at the queue of tasks waits for ever if the one before it is gone. The parent
    of a worker in the system's eyes is the fork server, which itself ends after its last worker.
    """
    threading.Thread(target=_exit_after_parent, name="parent", daemon=True).start()


def _exit_after_parent() -> None:
    multiprocess.parent_process().join()  # the end of a pipe that only the maker of the pool holds open
    os._exit(1)


class _Nowhere:
    """A console that shows nothing; what is written to it also stands in the task's log file."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass


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
                file.seek(self.offsets.get(path, 0))
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
