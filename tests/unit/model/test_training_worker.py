"""The trainer process: what it loads, how it logs, when it ends."""

import errno
import io
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from model.training.job import PARENT_VARIABLE, TrainerStatus
from model.training.worker import log_as_json, report, status_of
from storage.errors import CorruptFileError, InputError

ENDED_SECONDS = 30


def test_trainer_process_loads_neither_prefect_nor_an_engine_that_it_does_not_use() -> None:
    code = (
        "import sys, model.training.worker, model.training.loop, model.training.engines.local\n"
        "print([name for name in ('prefect', 'deepspeed', 'transformers', 'datatrove', 'wandb', 'tasks')"
        " if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_config_of_a_training_loads_no_torch() -> None:
    code = "import sys, tasks.train.stage; print([m for m in ('torch', 'prefect', 'numpy') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


PARENT = """
import os, subprocess, sys
child = "import time; from model.training.worker import end_with_parent; end_with_parent();" \
        "print('ready', flush=True); time.sleep(600)"
environment = {**os.environ, sys.argv[1]: str(os.getpid())}
process = subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE, env=environment)
process.stdout.readline()
print(process.pid, flush=True)
process.wait()
"""


def is_running(process_id: int) -> bool:
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_trainer_process_ends_when_its_parent_is_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, PARENT_VARIABLE], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    try:
        assert is_running(child)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        deadline = time.monotonic() + ENDED_SECONDS
        while is_running(child) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not is_running(child)
    finally:
        if is_running(child):
            os.kill(child, signal.SIGKILL)
        parent.stdout.close()


def test_trainer_process_whose_parent_is_gone_does_not_begin() -> None:
    code = "from model.training.worker import end_with_parent; end_with_parent(); print('began')"
    environment = {**os.environ, PARENT_VARIABLE: "1"}  # not the process that starts it
    found = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stdout) == (1, "")


def test_log_lines_are_json_with_the_step() -> None:
    before = logging.getLogger().handlers[:]
    stream = io.StringIO()
    try:
        log_as_json(stream)
        logging.getLogger("model.training.loop").info('loss %.1f\n"x"', 4.25, extra={"progress": 7})
        logging.getLogger("some.library").info("not shown")
    finally:
        logging.captureWarnings(False)
        logging.getLogger().handlers[:] = before
        for name in ("model", "storage"):
            logging.getLogger(name).setLevel(logging.NOTSET)
    assert [json.loads(line) for line in stream.getvalue().splitlines()] == [
        {"level": logging.INFO, "logger": "model.training.loop", "message": 'loss 4.2\n"x"', "progress": 7}
    ]


def test_status_tells_the_kind_of_an_error() -> None:
    assert status_of(CorruptFileError("shard 3"), "s") == TrainerStatus(state="fault", message="shard 3")
    assert status_of(InputError("no"), "s") == TrainerStatus(state="input-error", message="no")
    assert status_of(RuntimeError("no"), "s") == TrainerStatus(state="failed", message="RuntimeError: no")


def test_full_disk_is_a_fault_that_says_what_to_do() -> None:
    named = status_of(OSError(errno.ENOSPC, "No space left on device", "/disk/file"), "/store")
    unnamed = status_of(OSError(errno.ENOSPC, "No space left on device"), "/store")
    assert named.state == unnamed.state == "fault"
    assert named.message.startswith("there must be room on the disk of /disk/file, found it full")
    assert unnamed.message.startswith("there must be room on the disk of /store, found it full")
    assert named.message.endswith("run again: finished checkpoints are kept")


def test_refusal_of_the_operating_system_is_a_fault_that_names_the_file() -> None:
    status = status_of(PermissionError(errno.EACCES, "Permission denied", "/disk/file"), "/store")
    assert status.state == "fault"
    assert "Permission denied: '/disk/file'" in status.message


def test_status_is_a_line_of_its_own_after_an_unfinished_one() -> None:
    stream = io.StringIO()
    stream.write("a library writes")
    report(stream, TrainerStatus(state="fault", message='disk\n"x"'))
    assert json.loads(stream.getvalue().splitlines()[1]) == {"status": {"state": "fault", "message": 'disk\n"x"'}}


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (3, "it ended with exit code 3"),
        (-signal.SIGKILL, "it was killed by signal SIGKILL (often the kernel, out of memory)"),
        (-signal.SIGSEGV, "it was killed by signal SIGSEGV"),
    ],
)
def test_status_of_a_process_that_told_nothing_says_how_it_ended(code: int, message: str) -> None:
    assert TrainerStatus.of_exit(code) == TrainerStatus(state="failed", message=message)
