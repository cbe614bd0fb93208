"""The trainer process: what it loads, how it logs, when it ends."""

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

from model.training.config import PARENT_VARIABLE, STATUS_FILE, TrainConfig, TrainerStatus
from model.training.worker import log_as_json, report, status_of
from storage.errors import DamagedFile, InputError

ENDED_SECONDS = 30


def test_trainer_process_loads_neither_prefect_nor_an_engine_that_it_does_not_use() -> None:
    code = (
        "import sys, model.training.worker, model.training.loop, model.training.local_engine\n"
        "print([name for name in ('prefect', 'deepspeed', 'transformers', 'datatrove', 'wandb', 'tasks')"
        " if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_config_of_a_training_loads_no_torch() -> None:
    code = "import sys, tasks.train_model; print([m for m in ('torch', 'prefect', 'numpy') if m in sys.modules])"
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


def test_first_reason_of_a_failure_is_the_one_that_is_told(tiny_corpus, job_for) -> None:
    job = job_for(tiny_corpus, TrainConfig())
    Path(job.folder).mkdir()
    for error in (DamagedFile("shard 3 is damaged"), RuntimeError("connection closed by peer")):
        report(job, status_of(error))
    told = TrainerStatus.model_validate_json((Path(job.folder) / STATUS_FILE).read_bytes())
    assert told == TrainerStatus(state="fault", message="shard 3 is damaged")
    assert status_of(InputError("no")).state == "input-error"
    assert status_of(RuntimeError("no")) == TrainerStatus(state="failed", message="RuntimeError: no")
