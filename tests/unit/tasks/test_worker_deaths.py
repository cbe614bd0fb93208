"""What is said about a worker that died, and where the kernel's count of kills is found."""

import signal
from pathlib import Path

import pytest

from tasks.executors import worker_deaths
from tasks.executors.worker_deaths import DeathReader, advice, out_of_memory_kills


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of files: cgroup, vmstat, sys/fs/cgroup."""
    monkeypatch.setattr(worker_deaths, "CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(worker_deaths, "VMSTAT", tmp_path / "vmstat")
    monkeypatch.setattr(worker_deaths, "HIERARCHIES", tmp_path / "sys")
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("cgroup", "counter", "text"),
    [
        ("0::/user/job", "sys/user/job/memory.events", "oom 3\noom_kill 5\noom_group_kill 1\n"),
        ("0::/above/the/mount", "sys/memory.events", "oom_kill 5\n"),
        ("0::/", "sys/memory.events", "oom_kill 5\n"),
        ("9:cpu:/\n4:memory:/job\n0::/", "sys/memory/job/memory.oom_control", "under_oom 0\noom_kill 5\n"),
        ("0::/", "vmstat", "nr_free_pages 9\noom_kill 5\n"),
        (None, "vmstat", "oom_kill 5\n"),
    ],
    ids=["v2", "v2-in-a-container", "v2-root", "v1", "whole-machine", "no-cgroups"],
)
def test_kills_are_counted_where_the_kernel_counts_them(
    machine: Path, cgroup: str | None, counter: str, text: str
) -> None:
    write(machine / "vmstat", "oom_kill 99\n")
    if cgroup is not None:
        write(machine / "cgroup", cgroup + "\n")
    write(machine / counter, text)
    assert out_of_memory_kills() == 5


def test_kills_are_none_where_nothing_counts_them(machine: Path) -> None:
    assert out_of_memory_kills() == 0


def test_each_kill_by_the_kernel_explains_one_death(machine: Path) -> None:
    write(machine / "vmstat", "oom_kill 7\n")
    reader = DeathReader()
    assert not reader.read(1, -signal.SIGKILL).out_of_memory
    write(machine / "vmstat", "oom_kill 9\n")
    assert not reader.read(2, -signal.SIGSEGV).out_of_memory
    deaths = [reader.read(number, -signal.SIGKILL) for number in (3, 4, 5)]
    assert [death.out_of_memory for death in deaths] == [True, True, False]


@pytest.mark.parametrize(
    ("exit_code", "how"),
    [
        (-9, "signal SIGKILL"),
        (-11, "signal SIGSEGV"),
        (-35, "signal 35"),
        (0, "exit code 0"),
        (255, "with the fork server"),
        (None, "did not end"),
    ],
)
def test_death_names_the_process_and_its_end(machine: Path, exit_code: int | None, how: str) -> None:
    death = DeathReader().read(123, exit_code)
    assert "process 123 " in str(death)
    assert how in str(death)
    assert ("execution.workers" in advice([death], 2)) == (exit_code in (-9, 255))
