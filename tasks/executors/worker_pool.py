"""Worker processes of which any may die at any moment, without a caller that waits for ever.

Not multiprocessing's Pool: when one of its processes is killed, as the kernel does when memory runs out, its item
is lost without a word and the caller waits for it for ever; so do the other workers if it held the lock of the
queue that all of them share. Here nothing is shared. Every worker has a pipe of its own and is handed one item at
a time, and the parent waits for answers and for the ends of processes at once.
"""

import contextlib
import logging
import os
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import multiprocess  # datatrove's: pickles functions of __main__ too
from multiprocess.connection import Connection, wait
from multiprocess.reduction import ForkingPickler

from storage.errors import Fault, LostWorkersError
from tasks.executors.worker_deaths import Death, DeathReader, advice

log = logging.getLogger(__name__)

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

LIVES = 2
"""Workers that an item may cost. One may have been killed by chance, or for the memory of its neighbours."""

START_PAUSES = (0.05, 0.2, 0.5, 1.0)
"""Seconds before another try at starting a process."""

END_SECONDS = 10.0
"""Time for a process to be gone after it closed its pipe or was killed."""


def run_in_workers(
    function: Callable[[ItemT], ResultT],
    items: Sequence[ItemT],
    workers: int,
    *,
    name: Callable[[ItemT], str] = str,
    start_method: str = "forkserver",
) -> list[ResultT]:
    """Return what `function` returns for each item, in order, computed in up to `workers` processes.

    Function, items and results must be picklable; a function that keeps state is a fresh copy for every item.
    `name` says in messages which item it is. An item whose worker dies is begun again by another one, so that
    `function` must be able to do what it has done in part or in full. No worker is left behind.

    Raises: whatever `function` raised first; LostWorkersError if an item cost LIVES workers; Fault if no process
    can be started.
    """
    pool = _Pool(function, items, workers, name, multiprocess.get_context(start_method))
    try:
        return pool.run()
    finally:
        pool.end()


class _Pool(Generic[ItemT, ResultT]):
    """Items that are left, and a worker for each that is under way: one with nothing to do is ended."""

    def __init__(
        self,
        function: Callable[[ItemT], ResultT],
        items: Sequence[ItemT],
        size: int,
        name: Callable[[ItemT], str],
        context: Any,
    ) -> None:
        self.function = _dump(function)
        self.items = items
        self.size = size
        self.name = name
        self.context = context
        self.left = deque(range(len(items)))
        self.results: dict[int, ResultT] = {}
        self.workers: list[_Worker] = []
        self.deaths: dict[int, list[Death]] = {}
        self.reader = DeathReader()

    def run(self) -> list[ResultT]:
        while self.left or self.workers:
            while self.left and len(self.workers) < self.size:
                self._start()
            for worker in self._heard():
                self._hear(worker)
        return [self.results[index] for index in range(len(self.items))]

    def end(self) -> None:
        """End all workers, also those in the middle of their work."""
        for worker in self.workers:
            worker.kill()
        for worker in self.workers:
            worker.forget()

    def _start(self) -> None:
        """Start a worker with the next item.

        More than one try: for a moment after its death a fork server that was killed is taken for a living one.
        """
        for pause in (*START_PAUSES, None):
            worker = _Worker(self.context, self.function)
            self.workers.append(worker)  # before it is started: an exception in between must not leave it behind
            self._give(worker)
            try:
                return worker.start()
            except (OSError, EOFError) as error:
                self._remove(worker)
                self.left.appendleft(worker.index)
                if pause is None:
                    raise Fault(
                        f"worker processes must start, but {len(START_PAUSES) + 1} tries in a row failed, the "
                        f"last with {error!r}; see whether this machine is short of memory or processes, or start "
                        f"fewer workers with `--set execution.workers=N` (now {self.size})"
                    ) from error
                time.sleep(pause)

    def _give(self, worker: "_Worker") -> None:
        worker.index = self.left.popleft()
        worker.item = _dump(self.items[worker.index])

    def _heard(self) -> list["_Worker"]:
        """Wait for an answer or an end; return the workers that it came from."""
        ends = {end: worker for worker in self.workers for end in (worker.pipe, worker.process.sentinel)}
        return list({id(ends[end]): ends[end] for end in wait(list(ends))}.values())

    def _hear(self, worker: "_Worker") -> None:
        try:
            answer = worker.receive()
        except (OSError, EOFError):  # nothing, or the beginning of an answer
            self._lose(worker, self.reader.read(worker.process.pid, worker.exit_code()))
            return
        result, error, trace = ForkingPickler.loads(answer)
        if error is not None:
            raise error from _WorkerTraceback(trace)
        self.results[worker.index] = result
        if self.left and worker.process.exitcode is None:
            self._give(worker)
            worker.send()
            return
        if self.left:  # killed since it answered: no item was lost, and none loses a life
            death = self.reader.read(worker.process.pid, worker.process.exitcode)
            log.warning("a worker was lost between two items: %s; another takes its place", death)
        self._remove(worker)

    def _lose(self, worker: "_Worker", death: Death) -> None:
        self._remove(worker)
        name = self.name(self.items[worker.index])
        deaths = self.deaths.setdefault(worker.index, [])
        deaths.append(death)
        if len(deaths) == LIVES:
            raise LostWorkersError(
                f"a worker must live until its work is done, but {name} cost {LIVES}: "
                f"{'; '.join(map(str, deaths))}; {advice(deaths, self.size)}"
            )
        log.warning("%s was lost: %s; another worker begins it again", name, death)
        self.left.appendleft(worker.index)

    def _remove(self, worker: "_Worker") -> None:
        worker.kill()
        worker.forget()
        self.workers.remove(worker)


class _Worker:
    """A process, our end of its pipe, and the item that it has."""

    def __init__(self, context: Any, function: bytes) -> None:
        self.pipe, self.their_end = context.Pipe()
        # A daemon: should we end without ending it, multiprocessing still does.
        self.process = context.Process(target=_serve, args=(self.their_end, function), daemon=True)
        self.index = -1
        self.item = b""

    def start(self) -> None:
        """Start the process and send it the item."""
        try:
            self.process.start()
        finally:
            self.their_end.close()  # it must be the only one that has it, or the pipe does not end with it
        self.send()

    def send(self) -> None:
        with contextlib.suppress(ConnectionError):  # it is dead, which waiting for it will tell
            self.pipe.send_bytes(self.item)

    def receive(self) -> bytes:
        """Return its answer. Raises: EOFError or OSError if it ended before, or while it sent."""
        if not self.pipe.poll():
            raise EOFError  # its end is all that was heard of it
        answer: bytes = self.pipe.recv_bytes()
        return answer

    def exit_code(self) -> int | None:
        """Return the exit code of a process that has ended, None if it only closed its pipe."""
        self.process.join(END_SECONDS)
        code: int | None = self.process.exitcode
        return code

    def kill(self) -> None:
        self.pipe.close()
        with contextlib.suppress(ValueError):  # forgotten already
            if self.process.pid is not None and self.process.exitcode is None:
                self.process.kill()

    def forget(self) -> None:
        """Wait until the killed process is gone, and let go of it.

        If the fork server was killed a process counts as ended that still runs; this makes it end as well.
        """
        with contextlib.suppress(ValueError):  # forgotten already, or not gone: the system will see to it
            if self.process.pid is not None:
                self.process.join(END_SECONDS)
            self.process.close()


class _WorkerTraceback(Exception):
    """Where in the worker an exception was raised: shown as its cause."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def _serve(pipe: Connection, function: bytes) -> None:
    """Be a worker: answer items until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends us if it ends
    threading.Thread(target=_exit_after_parent, name="parent", daemon=True).start()
    with pipe, contextlib.suppress(EOFError, ConnectionError):
        while True:
            pipe.send_bytes(_answer(function, pipe.recv_bytes()))


def _exit_after_parent() -> None:
    """End this process when the one that made it does, however that ends.

    The parent of a worker in the system's eyes is the fork server, which itself ends after its last worker.
    """
    multiprocess.parent_process().join()  # the end of a pipe that only the maker of the worker holds open
    os._exit(1)


def _answer(function: bytes, item: bytes) -> bytes:
    """Return (result, None, "") or (None, exception, traceback) of one item, pickled."""
    try:
        return _dump((ForkingPickler.loads(function)(ForkingPickler.loads(item)), None, ""))
    except Exception as error:  # noqa: BLE001 - the parent raises it
        trace = "".join(traceback.format_exception(error))
        try:
            answer = _dump((None, error, trace))
            ForkingPickler.loads(answer)  # some can be pickled and not be made again
            return answer
        except Exception:  # noqa: BLE001 - whatever its pickling raises: it must be told of
            text = "".join(traceback.format_exception_only(error)).strip()
            return _dump((None, RuntimeError(f"a worker raised what cannot be sent: {text}"), trace))


def _dump(value: object) -> bytes:
    return bytes(ForkingPickler.dumps(value))
