"""The Prefect server of one command: forks that share nothing with their parent but its life."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from flows.service.server import is_server

pytestmark = pytest.mark.slow  # each starts a server

PARENT = """
import fcntl, os, sys
from pathlib import Path
from flows.service import settings
settings.apply()
import flows.service.flow_run
from flows.service.embedded import start_server

home = Path(sys.argv[1])
with open(sys.argv[1] + ".lock", "w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    if sys.stdout:
        print("written-once ", end="")
    url = start_server(home)
if os.fork() == 0:
    sys.exit(0)  # a child that ends as processes do
os.wait()
(home / "url").write_text(url)
if sys.stdin:
    print("started", flush=True)
    sys.stdin.readline()
"""


def command(home: Path) -> tuple[list[str], dict[str, str]]:
    environment = {**os.environ, "PREFECT_HOME": str(home), "PYTHONPATH": os.getcwd()}
    return [sys.executable, "-c", PARENT, str(home)], environment


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    line, environment = command(tmp_path / "home")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(line, env=environment, text=True, **pipes) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline().split()
            assert said == ["written-once", "started"]  # the first waited in a buffer when the parent was forked
            yield process
        finally:
            process.kill()


def processes(parent: subprocess.Popen[str]) -> list[psutil.Process]:
    [guard] = psutil.Process(parent.pid).children()
    [server] = guard.children()
    return [guard, server]


def half_a_request(url: str) -> socket.socket:
    client = socket.create_connection((str(urlsplit(url).hostname), int(urlsplit(url).port or 0)))
    client.sendall(b"POST /api/flows/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
    return client


@pytest.mark.parametrize("killed", [True, False])
def test_server_keeps_no_lock_of_its_parent_and_ends_with_it(
    parent: subprocess.Popen[str], tmp_path: Path, killed: bool
) -> None:
    url = (tmp_path / "home" / "url").read_text()
    assert is_server(url)
    for lock in (tmp_path / "home.lock", tmp_path / "home" / "embedded-server.lock"):
        subprocess.run(["flock", "--nonblock", str(lock), "true"], check=True)
    both = processes(parent)
    with half_a_request(url):
        if killed:
            parent.kill()
        elif parent.stdin is not None:
            parent.stdin.close()
        _, left = psutil.wait_procs(both, timeout=30)
        assert left == []


def test_server_that_is_killed_is_started_again_with_the_same_address(
    parent: subprocess.Popen[str], tmp_path: Path
) -> None:
    url = (tmp_path / "home" / "url").read_text()
    guard, server = processes(parent)
    server.kill()
    wait_until(lambda: is_server(url, 60))
    again = guard.children()
    guard.terminate()
    _, left = psutil.wait_procs([guard, *again], timeout=20)
    assert [process for process in left if process.status() != psutil.STATUS_ZOMBIE] == []


def test_server_that_does_not_end_when_it_is_told_is_killed(parent: subprocess.Popen[str]) -> None:
    both = processes(parent)
    both[1].suspend()
    parent.kill()
    _, left = psutil.wait_procs(both, timeout=30)
    assert left == []


def test_server_is_found_although_others_are_behind_a_proxy(tmp_path: Path) -> None:
    line, environment = command(tmp_path / "home")
    behind = {"http_proxy": "http://127.0.0.1:9", "all_proxy": "http://127.0.0.1:9", "no_proxy": "elsewhere"}
    subprocess.run(line, env=environment | behind, stdin=subprocess.DEVNULL, timeout=120, check=True)


def wait_until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_server_starts_without_standard_streams(tmp_path: Path) -> None:
    line, environment = command(tmp_path / "home")
    subprocess.run(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *line], env=environment, timeout=120, check=True)
    assert (tmp_path / "home" / "url").read_text().startswith("http://127.0.0.1:")


def test_server_that_cannot_start_is_told_with_its_log(tmp_path: Path) -> None:
    (tmp_path / "home" / "prefect.db").mkdir(parents=True)
    line, environment = command(tmp_path / "home")
    said = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=60)
    assert "Fault: the Prefect server of this run must answer" in said.stderr
    log_file = tmp_path / "home" / "embedded-server.log"
    assert str(log_file) in said.stderr
    assert "unable to open database file" in log_file.read_text()


@pytest.mark.parametrize(
    "blocked", ["home", "home/embedded-server.log/folder", "home/embedded-server.lock/folder"]
)
def test_home_that_cannot_be_written_to_is_an_input_error(tmp_path: Path, blocked: str) -> None:
    (tmp_path / blocked).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / blocked).touch()
    line, environment = command(tmp_path / "home")
    said = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=60)
    assert "InputError: PREFECT_HOME must be a folder" in said.stderr
