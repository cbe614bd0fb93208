"""Runs watched and stopped from another process: `pile status`, `logs`, `cancel`, and `run --detach`."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import flows
from flows.command.parser import build_parser
from flows.command.running import control, detach
from flows.runs.record import new_record
from flows.runs.request import Request
from storage.artifacts.processes import start_of_process
from storage.artifacts.records import Run, RunStage, now
from storage.artifacts.run_log import RunLog
from storage.artifacts.store import Store
from storage.errors import InputError
from storage.registry import load

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(flows.__file__).parents[1])}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


@pytest.fixture
def sleeper() -> Iterator["subprocess.Popen[bytes]"]:
    """A process in place of one that runs stages."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


def write_run(store: Store, run_id: str, process_id: int, **changes: object) -> Run:
    asked = Request.checked("demo", {}, "all", [], store.url)
    train = RunStage(
        stage="train",
        key="",
        state="running",
        done=120,
        total=400,
        unit="steps",
        note="loss 5.4",
        eta_seconds=96.0,
    )
    fields = {"process_id": process_id, "process_start": start_of_process(process_id), "stages": (train,)}
    run = new_record(asked, run_id).model_copy(update={**fields, "updated": now(), **changes})
    store.write_run(run)
    return run


def call(store: Store, *arguments: str) -> int:
    options = build_parser().parse_args([*arguments, "--store", store.url])
    code: int = load(options.verb.reference)(options)
    return code


def later(what: Callable[[], object]) -> threading.Thread:
    def wait_a_little() -> None:
        time.sleep(0.3)
        what()

    thread = threading.Thread(target=wait_a_little)
    thread.start()
    return thread


def test_status_says_what_runs_how_far_and_how_long(
    store: Store, sleeper: "subprocess.Popen[bytes]", capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(store, "done-before", os.getpid(), state="done", finished=now())
    write_run(store, "at-work", sleeper.pid)
    assert call(store, "status") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "at-work demo" in text
    assert "120 of 400 steps" in text
    assert "96 s left" in text
    assert "done-before" not in text


def test_status_of_a_killed_run_is_crashed_with_how_far_it_was(
    store: Store, sleeper: "subprocess.Popen[bytes]", capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(store, "killed", sleeper.pid)
    sleeper.kill()
    sleeper.wait()
    assert call(store, "status") == 0
    assert "nothing runs; the last run was killed of demo: crashed" in capsys.readouterr().out
    assert call(store, "status", "killed", "--json") == 0
    [found] = json.loads(capsys.readouterr().out)
    assert (found["state"], found["done"], found["total"], found["eta_seconds"]) == ("crashed", 120, 400, None)
    assert found["command"].startswith("pile run demo")


def test_show_and_ls_have_the_same_word(
    store: Store, sleeper: "subprocess.Popen[bytes]", capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(store, "killed", sleeper.pid)
    sleeper.kill()
    sleeper.wait()
    call(store, "ls", "--runs")
    assert "crashed" in capsys.readouterr().out
    call(store, "show", "killed")
    shown = capsys.readouterr().out
    assert "recipe demo, crashed" in shown
    assert "120 of 400 steps" in shown
    assert "continue   pile run demo" in shown


def test_logs_follow_a_run_to_its_end(
    store: Store, sleeper: "subprocess.Popen[bytes]", capfdbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(control, "FOLLOW_SECONDS", 0.05)
    monkeypatch.setattr(sys, "stdout", open(1, "w", closefd=False))  # noqa: SIM115 - with a buffer, as in a shell
    run = write_run(store, "at-work", sleeper.pid)
    lines = RunLog(store, run.run_id)
    lines.add("first")
    lines.flush()

    def end() -> None:
        lines.add("second")
        lines.flush()
        store.write_run(run.model_copy(update={"state": "done", "finished": now()}))

    thread = later(end)
    assert call(store, "logs", "--follow") == 0
    thread.join()
    assert capfdbinary.readouterr().out == b"first\nsecond\n"


def test_cancel_tells_a_run_of_this_machine_at_once(
    store: Store, sleeper: "subprocess.Popen[bytes]", capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(store, "at-work", sleeper.pid)

    def end() -> None:
        assert sleeper.wait(20) == -signal.SIGTERM
        store.write_run(run.model_copy(update={"state": "cancelled", "finished": now()}))

    thread = threading.Thread(target=end)
    thread.start()
    code = call(store, "cancel")
    thread.join()
    said = capsys.readouterr().out
    # The record may be read between the end of the process and its last word.
    assert "at-work: cancelled" in said or "at-work: crashed" in said
    assert "at 120 of 400 steps" in said
    assert "continue with:\n  pile run demo" in said
    assert code == 0
    assert not store.is_to_stop("at-work")


def test_cancel_leaves_the_wish_for_a_run_of_another_machine(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(store, "far-away", 1, machine="another", host="node-7")

    def end() -> None:
        assert store.is_to_stop("far-away")
        store.write_run(run.model_copy(update={"state": "cancelled", "finished": now()}))

    thread = later(end)
    assert call(store, "cancel", "far-away") == 0
    thread.join()
    assert "far-away: cancelled in train" in capsys.readouterr().out


@pytest.mark.parametrize("running", [0, 2])
def test_cancel_must_be_told_which(store: Store, running: int, sleeper: "subprocess.Popen[bytes]") -> None:
    write_run(store, "done", os.getpid(), state="done")
    for number in range(running):
        write_run(store, f"r{number}", sleeper.pid)
    with pytest.raises(InputError, match="none" if not running else "r0, r1"):
        call(store, "cancel")


def test_cancel_of_what_has_ended_is_refused(store: Store) -> None:
    write_run(store, "done", os.getpid(), state="done")
    with pytest.raises(InputError, match="found done: done"):
        call(store, "cancel", "done")


def test_a_run_that_cannot_begin_is_not_detached(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "flows.command",
        "run",
        "own-files",
        "--detach",
        "--store",
        str(tmp_path / "s"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "in the background" not in done.stdout
    assert not (tmp_path / "s" / "runs").exists()


def test_a_process_that_ends_before_its_run_begins_is_told(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho 'no such module' >&2\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setattr(detach.sys, "executable", str(broken))
    assert call(store, "run", "demo", "--detach") == 3
    assert "no such module" in capsys.readouterr().err
