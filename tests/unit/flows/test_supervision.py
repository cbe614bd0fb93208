"""Services that are kept running: what happens to one that is killed, seen on real processes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flows.service.supervision import FIRST_PAUSE, HEALTHY_SECONDS, LONGEST_PAUSE, Service


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def sleeper(tmp_path: Path, clock: Clock, said: list[str]):
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    service = Service("worker-cpu", command, os.environ, tmp_path / "worker.log", said.append, clock)
    yield service
    service.process.kill()
    service.process.wait()


def kill(service: Service) -> None:
    service.process.send_signal(signal.SIGKILL)
    service.process.wait()


def test_service_that_is_killed_is_started_again_after_a_pause_and_says_so(sleeper, clock, said) -> None:
    first = sleeper.process.pid
    kill(sleeper)
    sleeper.tend()
    assert sleeper.process.pid == first
    clock.now += FIRST_PAUSE
    sleeper.tend()
    assert sleeper.process.pid != first
    assert sleeper.ended() is None
    assert said[1].startswith("worker-cpu ended (killed by SIGKILL); starting it again in 1 s")
    assert said[2] == "worker-cpu is started again"


def test_pause_doubles_up_to_the_longest_and_starts_over_after_a_healthy_time(sleeper, clock) -> None:
    pauses = []
    for lived in [1.0] * 8 + [HEALTHY_SECONDS]:
        clock.now += lived
        kill(sleeper)
        sleeper.tend()
        pauses.append(sleeper.again_at - clock.now)
        clock.now = sleeper.again_at
        sleeper.tend()
    assert pauses == [1, 2, 4, 8, 16, 32, LONGEST_PAUSE, LONGEST_PAUSE, FIRST_PAUSE]


def test_service_that_runs_is_left_alone(sleeper, clock, said) -> None:
    first = sleeper.process.pid
    clock.now += 10 * HEALTHY_SECONDS
    sleeper.tend()
    assert (sleeper.process.pid, said) == (first, ["starting worker-cpu"])


@pytest.mark.skipif(sys.platform != "linux", reason="the call that ends children with their parent is Linux's")
def test_service_ends_with_the_process_that_keeps_it(tmp_path: Path) -> None:
    script = (
        "import os, sys, time, pathlib\n"
        "from flows.service.supervision import Service\n"
        "command = [sys.executable, '-c', 'import time; time.sleep(600)']\n"
        "service = Service('x', command, os.environ, pathlib.Path(sys.argv[1]), lambda line: None)\n"
        "print(service.process.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    keeper = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True
    )
    assert keeper.stdout is not None
    child = int(keeper.stdout.readline())
    keeper.kill()
    keeper.wait()
    while _runs(child):
        pass  # the test's own time limit ends this


def _runs(process_id: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
