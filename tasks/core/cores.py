"""How many cores this process may use: a machine has more than a container or a batch job gives it."""

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

CGROUP = Path("/proc/self/cgroup")
HIERARCHIES = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """Return the cores that affinity (taskset, Slurm) and the quotas of all cgroups above leave, at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min([allowed, *_quotas()])))


def _quotas() -> Iterator[float]:
    """Yield the limits in cores of this process' cgroups, those further up included: the tightest counts."""
    try:
        lines = CGROUP.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:  # cgroup v2: `max 100000` or `150000 100000`, microseconds of a period
            for folder in _folders(HIERARCHIES, path):
                with contextlib.suppress(OSError, ValueError):
                    quota, period = (folder / "cpu.max").read_text().split()
                    yield int(quota) / int(period)
        elif "cpu" in controllers.split(","):
            for folder in _folders(HIERARCHIES / "cpu", path):
                with contextlib.suppress(OSError, ValueError):
                    quota = (folder / "cpu.cfs_quota_us").read_text()
                    period = (folder / "cpu.cfs_period_us").read_text()
                    if int(quota) > 0:  # -1: no limit
                        yield int(quota) / int(period)


def _folders(root: Path, path: str) -> Iterator[Path]:
    """Yield the folder of a cgroup and those above it; in a container the path may begin above what is mounted."""
    inside = PurePosixPath(path)
    for folder in (inside, *inside.parents):
        yield root / folder.relative_to("/")
