"""The Prefect server of one command: a fork that shares nothing with its parent but its life."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from flows.service.server import is_server

PARENT = """
import fcntl, sys, time
from pathlib import Path
from flows.service import settings
settings.apply()
import flows.service.flow_run
from flows.service.embedded import start_server

home = Path(sys.argv[1])
with open(sys.argv[1] + ".lock", "w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    print("written-once ", end="")
    url = start_server(home)
print(url, flush=True)
time.sleep(600)
"""


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    home = tmp_path / "home"
    environment = {**os.environ, "PREFECT_HOME": str(home), "PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-c", PARENT, str(home)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said, url = process.stdout.readline().split()
            assert said == "written-once"  # what waited in the parent's buffer when it was forked
            yield process, url
        finally:
            process.kill()


def test_server_keeps_no_lock_or_file_of_its_parent_and_ends_with_it(
    parent: tuple[subprocess.Popen[str], str], tmp_path: Path
) -> None:
    process, url = parent
    assert is_server(url)
    locks = [tmp_path / "home.lock", tmp_path / "home" / "embedded-server.lock"]
    for lock in locks:
        subprocess.run(["flock", "--nonblock", str(lock), "true"], check=True)
    process.send_signal(signal.SIGKILL)
    wait_until(lambda: not is_server(url))


def test_server_that_is_killed_is_started_again_with_the_same_address(
    parent: tuple[subprocess.Popen[str], str],
) -> None:
    process, url = parent
    [keeper] = psutil.Process(process.pid).children()
    [server] = keeper.children()
    server.kill()
    wait_until(lambda: is_server(url, 60))
    keeper.terminate()
    psutil.wait_procs([server, keeper], timeout=20)
    assert not is_server(url)


def wait_until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_server_that_cannot_start_is_told_with_its_log(tmp_path: Path) -> None:
    (tmp_path / "home" / "prefect.db").mkdir(parents=True)
    environment = {**os.environ, "PREFECT_HOME": str(tmp_path / "home"), "PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-c", PARENT, str(tmp_path / "home")]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert "Fault: the Prefect server of this run must answer" in said.stderr
    log_file = tmp_path / "home" / "embedded-server.log"
    assert str(log_file) in said.stderr
    assert "unable to open database file" in log_file.read_text()
