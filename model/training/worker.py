"""The trainer process: `python -m model.training.worker job.json`, started by tasks.train.process.

The first process becomes torchrun, which starts one worker per rank, for every engine. The job file is the only
argument, since torchrun would take abbreviations of its own options out of ours. Log lines go to stdout as one
JSON object each, and so does how the training ended: torchrun's exit code tells little, and a disk may be full.
"""

import ctypes
import errno
import json
import logging
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TextIO

import numpy as np
import torch
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main as torchrun

from model.training.job import PARENT_VARIABLE, TrainerStatus, TrainingJob
from storage.artifacts.store import Store
from storage.errors import Fault, InputError, StoreAwayError

log = logging.getLogger("model.training.worker")  # __name__ is __main__ here

PR_SET_PDEATHSIG = 1


def main(job_file: str) -> int:
    """Run one process of a training; return its exit code."""
    end_with_parent()
    job = TrainingJob.model_validate_json(Path(job_file).read_bytes())
    log_as_json(sys.stdout)
    try:
        return work(job) if "RANK" in os.environ else launch(job, job_file)
    except BaseException as error:  # the parent must learn the reason, whatever it is
        status = status_of(error, job.store)
        if status.state == "failed":
            log.exception("the trainer failed")
        report(sys.stdout, status)
        return 1


def work(job: TrainingJob) -> int:
    """Train, as one of the processes that torchrun starts."""
    stop = threading.Event()
    store = Store(job.store, job.store_patience)

    def on_signal(*_: object) -> None:
        stop.set()
        store.stop_waiting()

    # Ctrl-C and the end of a terminal reach the whole process group, unless it was started to outlive that.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, on_signal)
    set_up_torch(job)
    from model.training.loop import train  # noqa: PLC0415 - reads data and model code; after the signals

    progress = train(job, stop.is_set, store)
    if progress.step < job.config.max_steps and os.environ["RANK"] == "0":
        came_to = f"step {progress.step} of {job.config.max_steps}"
        report(sys.stdout, TrainerStatus(state="stopped", message=came_to))
    return 0


def launch(job: TrainingJob, job_file: str) -> int:
    """Be torchrun: start the workers on this machine and wait for them."""
    # torchrun's own meeting place is a TCP store that listens on all interfaces; a file does it on one machine.
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    options = ["--nnodes=1", f"--nproc-per-node={job.processes}", "--max-restarts=0", "--local-addr=127.0.0.1"]
    options += ["--rdzv-backend=c10d", f"--rdzv-endpoint={job.folder}/torchrun", "--rdzv-conf=store_type=file"]
    # Its lines say that a process ended and was told to; why, the workers say themselves.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    try:
        torchrun([*options, "-m", "model.training.worker", job_file])
    except ChildFailedError as error:
        # Counts only if no worker said why; one that was killed did not.
        report(sys.stdout, TrainerStatus.of_exit(error.get_first_failure()[1].exitcode))
        return 1
    except SignalException:
        return 1
    return 0


def end_with_parent() -> None:
    """Make this process end when the one that started it does, however that ends.

    Linux kills the child itself when the thread that started it ends, which is the one that waits for it;
    elsewhere a thread looks every second. The check afterwards finds a parent that was gone before.
    """
    parent = int(os.environ.get(PARENT_VARIABLE, os.getppid()))
    os.environ[PARENT_VARIABLE] = str(os.getpid())
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=_watch_parent, args=(parent,), name="parent", daemon=True).start()
    if os.getppid() != parent:
        os._exit(1)


def _watch_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def set_up_torch(job: TrainingJob) -> None:
    """Make results repeatable: fixed seeds and threads, no kernel whose sums depend on chance."""
    torch.set_num_threads(job.threads)
    torch.use_deterministic_algorithms(True)
    # Filling every new tensor costs time, and nothing here reads memory that was not written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    random.seed(job.config.seed)
    np.random.seed(job.config.seed % 2**32)  # noqa: NPY002 - the global generator, for libraries that use it


def log_as_json(stream: TextIO) -> None:
    """Send our log records, and the warnings of libraries, to `stream`: one JSON object a line."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_JsonFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in ("model", "storage"):
        logging.getLogger(name).setLevel(logging.INFO)
    logging.captureWarnings(True)


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        if record.exc_info:
            message += "\n" + self.formatException(record.exc_info)
        line = {"level": record.levelno, "logger": record.name, "message": message}
        if (progress := getattr(record, "progress", None)) is not None:
            line["progress"] = progress
            if note := getattr(record, "note", ""):
                line["note"] = note
        return json.dumps(line)


def status_of(error: BaseException, store: str) -> TrainerStatus:
    """Return what the parent process raises again. `store` is named if an error of the disk names no file."""
    if isinstance(error, InputError):
        return TrainerStatus(state="input-error", message=str(error))
    if isinstance(error, StoreAwayError):
        return TrainerStatus(state="store-away", message=str(error))
    if isinstance(error, Fault):
        return TrainerStatus(state="fault", message=str(error))
    if isinstance(error, OSError):
        return TrainerStatus(state="fault", message=disk_text(error, store))
    return TrainerStatus(state="failed", message=f"{type(error).__name__}: {error}")


def disk_text(error: OSError, store: str) -> str:
    """Return what a user should know when the operating system refuses to read or write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"there must be room on the disk of {error.filename or store}, found it full ({error.strerror}); free "
            f"some, or use another --store or PILE_SCRATCH, and run again: finished checkpoints are kept"
        )
    return (
        f"the trainer must be able to read and write its files, but the operating system refused: {error}; mend "
        f"that and run again: finished checkpoints are kept"
    )


def report(stream: TextIO, status: TrainerStatus) -> None:
    """Tell the parent how the training ended. It believes the first that it is told: that is the cause."""
    # A line of its own, even if a library left one unfinished.
    stream.write(f"\n{json.dumps({'status': status.model_dump()})}\n")
    stream.flush()


if __name__ == "__main__":
    exit_code = main(sys.argv[1])
    sys.stdout.flush()
    # Not sys.exit: after all is done the C++ side of a DeepSpeed process aborts now and then (1 in 20 measured),
    # and a Weights & Biases thread may still wait for the network.
    os._exit(exit_code)
