"""The trainer as a child process: start it, pass on its log lines, end it whatever happens here.

It is a process of its own because torch threads, process groups and GPU memory do not survive in, or leave, a
process that also runs Prefect and retries.
"""

import contextlib
import json
import logging
import os
import selectors
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from model.training.job import PARENT_VARIABLE, TrainerStatus, TrainingJob
from storage.artifacts.records import JsonDict
from storage.errors import Fault, InputError, StoreAwayError
from tasks.core.context import Progress

log = logging.getLogger(__name__)

STOP_SECONDS = 45
"""Time for a trainer that is told to stop to save a checkpoint; torchrun kills its workers after 30 s."""

TORCHRUN_VARIABLES = frozenset({"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"})
"""Would make the trainer believe that it was one of the processes of somebody else's torchrun."""

CODE = Path(__file__).parents[2]


def run_trainer(job: TrainingJob, progress: Progress) -> TrainerStatus:
    """Run the trainer to its end and return what it looks like from here.

    Whether the training succeeded, only the committed parts say: torchrun's exit code is 1 after a clean stop,
    and a process may crash after its work is done. On any exception, KeyboardInterrupt included, the trainer is
    given time to save a checkpoint and no process is left behind.
    """
    folder = Path(job.folder)
    folder.mkdir(parents=True)
    job_file = folder / "job.json"
    job_file.write_text(job.model_dump_json(indent=1))
    told: list[TrainerStatus] = []
    with _trainer(job, job_file) as process:
        for line in _lines(process):
            record = _record(line)
            if "status" in record:
                told.append(TrainerStatus.model_validate(record["status"]))
                continue
            _pass_on(record)
            if "progress" in record:
                progress(record["progress"], job.config.max_steps, "steps", record.get("note", ""))
        code = process.wait()
    return told[0] if told else TrainerStatus.of_exit(code)  # processes that fail later fail for want of the first


@contextlib.contextmanager
def _trainer(job: TrainingJob, job_file: Path) -> Iterator[subprocess.Popen[bytes]]:
    inherited = {name: value for name, value in os.environ.items() if name not in TORCHRUN_VARIABLES}
    environment = {
        **inherited,
        "PYTHONPATH": os.pathsep.join([str(CODE), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "PYTHONSAFEPATH": "1",  # torchrun too: a folder `model` where we were started is the user's
        PARENT_VARIABLE: str(os.getpid()),
        "OMP_NUM_THREADS": str(job.threads),
        # Waiting threads that spin steal from the working ones when cores are shared: on two cores with one other
        # busy process 1,400 tokens/s, against 4,300 with sleeping ones; 5 % slower on an idle machine.
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
        "GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else "lo0",  # all processes are on this machine
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # cuBLAS is deterministic only with a fixed workspace
    }
    # Same process group: Ctrl-C reaches the trainer, and a shell that kills the group kills it too.
    process = subprocess.Popen(
        [sys.executable, "-m", "model.training.worker", str(job_file)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            _stop(process)
        process.stdout.close()  # type: ignore[union-attr]


def _stop(process: subprocess.Popen[bytes]) -> None:
    log.info("stopping the trainer; it saves a checkpoint first")
    process.terminate()
    try:
        process.communicate(timeout=STOP_SECONDS)
    except subprocess.TimeoutExpired:
        log.warning("the trainer did not stop in %d s; killing it", STOP_SECONDS)
    finally:  # also on a second Ctrl-C
        process.kill()  # torchrun's workers follow: worker.end_with_parent
        process.wait()


def _lines(process: subprocess.Popen[bytes]) -> Iterator[str]:
    """Yield lines until the process has ended, even if a grandchild keeps its end of the pipe open."""
    pipe = process.stdout.fileno()  # type: ignore[union-attr]
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while True:
            ended = process.poll() is not None
            if selector.select(timeout=0 if ended else 0.5):
                if not (data := os.read(pipe, 1 << 16)):
                    break
                *lines, rest = (rest + data).split(b"\n")
                yield from (line.decode(errors="replace") for line in lines)
            elif ended:
                break
    if rest:
        yield rest.decode(errors="replace")


def _record(line: str) -> JsonDict:
    """Return what a line of the trainer says; a library's own print, or a traceback, is taken as its message."""
    with contextlib.suppress(ValueError):
        record = json.loads(line)
        if isinstance(record, dict) and ("status" in record or record.keys() >= {"level", "logger", "message"}):
            return record
    return {"level": logging.INFO, "logger": __name__, "message": line}


def _pass_on(record: JsonDict) -> None:
    """Log a record of the trainer as if it had been logged here."""
    if record["message"].strip():
        logging.getLogger(record["logger"]).log(record["level"], "%s", record["message"])


def failure(status: TrainerStatus) -> InputError | Fault:
    """Return the error for a trainer that ended without its result."""
    if status.state == "input-error":
        return InputError(status.message)
    if status.state == "store-away":
        return StoreAwayError(status.message)
    if status.state == "fault":
        return Fault(status.message)
    if status.state == "stopped":
        return Fault(f"training was stopped at {status.message}; run it again to continue from there")
    return Fault(
        f"the trainer must end by itself and leave its result, but {status.message}; its log lines above may say "
        f"more, run again to continue from the last checkpoint"
    )
