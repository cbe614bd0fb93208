"""A training that is killed, stopped and interrupted while it runs, through real processes and signals."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from storage.artifacts.store import Artifact, Store

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc"),
]

CODE = Path(__file__).parents[2]
WAIT_SECONDS = 60
STEPS = 500
"""Two seconds of training on an idle core: long enough to be met alive after its first checkpoint."""

STAGE_PROCESS = """
import logging, signal, sys
from model.families.rope.config import RopeShape
from model.training.config import TrainConfig
from storage.errors import Fault
from storage.artifacts.store import Store
from tasks.core.execution import Execution
from tasks.core.stage import RunContext
from tasks.core.runner import run_stage
from tasks.train.stage import STAGE

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job inherits it ignored
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
store = Store(sys.argv[1])
config = TrainConfig(
    model=RopeShape(n_layers=1, n_heads=2, n_kv_heads=1, d_model=16, d_ff=24), max_steps=int(sys.argv[2]),
    global_batch_size=8, micro_batch_size=4, warmup_steps=2, checkpoint_every=20, eval_every=100, log_every=50,
)
inputs = {"sequences": store.find("pack", "0" * 16), "tokenizer": store.find("train-tokenizer", "0" * 16)}
context = RunContext(store=store, run_id="test", recipe={}, execution=Execution(threads=1, device="cpu"))
try:
    print("DIGEST", run_stage(STAGE, config, inputs, context).artifact.content_digest, flush=True)
except (Fault, KeyboardInterrupt) as error:
    print(type(error).__name__.upper(), error, flush=True)
    sys.exit(1)
"""


@contextmanager
def stage_process(store: Store, folder: Path = CODE) -> Iterator[subprocess.Popen[str]]:
    """Run the stage from `folder`, in a process group of its own, as a shell would."""
    command = [sys.executable, "-P", "-c", STAGE_PROCESS, store.url, str(STEPS)]
    environment = {**os.environ, "PYTHONPATH": str(CODE)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True, cwd=folder, env=environment
    ) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def has_checkpoint(store: Store) -> bool:
    return any("/parts/step-" in path for path in store.paths("artifacts/train"))


def children(process_id: int) -> list[int]:
    return [int(text) for text in Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split()]


def is_running(process_id: int) -> bool:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def trainer_of(process: "subprocess.Popen[str]", store: Store) -> int:
    """Return the trainer's process number, once it has committed a checkpoint."""
    wait_until(lambda: has_checkpoint(store))
    (trainer,) = [
        child for child in children(process.pid) if b"worker" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]
    return trainer


def worker_of(trainer: int) -> int:
    """Return the process that trains: the trainer itself is torchrun."""
    (worker,) = children(trainer)
    return worker


def output_of(store: Store, folder: Path = CODE) -> str:
    with stage_process(store, folder) as process:
        return process.communicate(timeout=WAIT_SECONDS)[0]


def result(store: Store) -> tuple[Artifact, str]:
    (manifest,) = store.manifests("train")
    artifact = store.find("train", manifest.key)
    return artifact, artifact.content_digest


@pytest.fixture
def undisturbed(tmp_path: Path, make_corpus) -> str:
    """The digest of the same training, left alone."""
    store = make_corpus(tmp_path / "undisturbed").store
    output_of(store)
    return result(store)[1]


def test_training_survives_the_death_of_its_process(tiny_corpus, undisturbed: str) -> None:
    store = tiny_corpus.store
    with stage_process(store) as process:
        os.kill(trainer_of(process, store), signal.SIGKILL)
        output, _ = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 1
    assert "killed by signal SIGKILL" in output
    assert "continuing from a checkpoint" in output_of(store)
    assert result(store)[1] == undisturbed


def test_training_runs_beside_folders_of_the_same_names(tiny_corpus, tmp_path: Path) -> None:
    for name in ("flows", "infra", "model", "storage", "tasks"):
        (tmp_path / "own" / name).mkdir(parents=True)
        (tmp_path / "own" / name / "__init__.py").write_text("raise ImportError('the package of the user')\n")
    assert "DIGEST" in output_of(tiny_corpus.store, tmp_path / "own")


def test_training_whose_worker_is_killed_says_so_in_one_line(tiny_corpus) -> None:
    store = tiny_corpus.store
    with stage_process(store) as process:
        os.kill(worker_of(trainer_of(process, store)), signal.SIGKILL)
        output, _ = process.communicate(timeout=WAIT_SECONDS)
    said = output.splitlines()[-1]
    assert said.startswith("FAULT the training must fit into memory, but it was killed by signal SIGKILL")
    assert "set train.micro_batch_size=" in said
    assert "continues from " in said
    assert "torch" not in output.partition("step 1/")[2]  # no chatter of torchrun's


def test_trainer_listens_on_no_port(tiny_corpus) -> None:
    store = tiny_corpus.store
    with stage_process(store) as process:
        trainer = trainer_of(process, store)
        sockets = {
            os.readlink(link)
            for number in (trainer, worker_of(trainer))
            for link in Path(f"/proc/{number}/fd").iterdir()
            if link.is_symlink()
        }
    tables = [Path(f"/proc/net/{name}").read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
    listening = {f"socket:[{line.split()[9]}]" for table in tables for line in table if line.split()[3] == "0A"}
    assert not sockets & listening


def test_training_that_is_told_to_stop_saves_its_step_first(tiny_corpus, undisturbed: str) -> None:
    store = tiny_corpus.store
    with stage_process(store) as process:
        os.kill(trainer_of(process, store), signal.SIGTERM)
        output, _ = process.communicate(timeout=WAIT_SECONDS)
    stopped_at = int(output.partition("FAULT training was stopped at step ")[2].split()[0])
    assert 20 <= stopped_at < STEPS
    assert any(f"/parts/step-{stopped_at:06d}" in path for path in store.paths("artifacts/train"))
    assert f"step {stopped_at}/{STEPS}: continuing" in output_of(store)
    assert result(store)[1] == undisturbed


def test_training_ends_with_the_process_that_started_it(tiny_corpus, undisturbed: str) -> None:
    store = tiny_corpus.store
    with stage_process(store) as process:
        trainer = trainer_of(process, store)
        worker = worker_of(trainer)
        os.kill(process.pid, signal.SIGKILL)
        wait_until(lambda: not is_running(trainer) and not is_running(worker))
    assert "continuing from a checkpoint" in output_of(store)
    assert result(store)[1] == undisturbed


@pytest.mark.parametrize("whole_group", [True, False], ids=["ctrl-c", "interrupt-of-the-stage"])
def test_interrupted_stage_leaves_no_process_and_a_checkpoint(tiny_corpus, whole_group: bool) -> None:
    store = tiny_corpus.store
    with stage_process(store) as process:
        trainer = trainer_of(process, store)
        worker = worker_of(trainer)
        (os.killpg if whole_group else os.kill)(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=WAIT_SECONDS)
        assert not is_running(trainer)
        assert not is_running(worker)
    assert output.splitlines()[-1].startswith(("KEYBOARDINTERRUPT", "FAULT training was stopped"))
    assert "DIGEST" in output_of(store)
