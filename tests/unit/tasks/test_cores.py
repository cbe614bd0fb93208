"""How many cores a process takes: affinity, and cgroups of both versions as files that the kernel would show."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.core import cores
from tasks.core.cores import usable_cores


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eight cores, and a folder in place of /sys/fs/cgroup."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(cores, "CGROUP", tmp_path / "self")
    monkeypatch.setattr(cores, "HIERARCHIES", tmp_path / "sys")
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("quota", "found"),
    [("max 100000", 8), ("100000 100000", 1), ("150000 100000", 2), ("20000 100000", 1), ("9900000 100000", 8)],
)
def test_a_quota_of_version_2_limits(machine: Path, quota: str, found: int) -> None:
    write(machine / "self", "0::/job/step\n")
    write(machine / "sys/job/step/cpu.max", quota)
    assert usable_cores() == found


def test_the_tightest_cgroup_above_counts(machine: Path) -> None:
    write(machine / "self", "0::/job/step\n")
    write(machine / "sys/job/step/cpu.max", "max 100000")
    write(machine / "sys/job/cpu.max", "300000 100000")
    write(machine / "sys/cpu.max", "600000 100000")
    assert usable_cores() == 3


@pytest.mark.parametrize(("quota", "found"), [("-1", 8), ("200000", 2)])
def test_a_quota_of_version_1_limits(machine: Path, quota: str, found: int) -> None:
    write(machine / "self", "5:memory:/m\n4:cpu,cpuacct:/job\n0::/\n")
    write(machine / "sys/cpu/job/cpu.cfs_quota_us", quota)
    write(machine / "sys/cpu/job/cpu.cfs_period_us", "100000")
    assert usable_cores() == found


def test_a_machine_without_cgroups_has_the_cores_of_its_affinity(machine: Path) -> None:
    assert usable_cores() == 8


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_a_process_on_one_core_uses_one_worker() -> None:
    code = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
    code += "from tasks.core.cores import usable_cores; print(usable_cores())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"1\n"
