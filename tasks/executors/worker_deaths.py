"""How a worker process ended, in words, and whether the kernel killed it for want of memory."""

import contextlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

CGROUP = Path("/proc/self/cgroup")
VMSTAT = Path("/proc/vmstat")
HIERARCHIES = Path("/sys/fs/cgroup")
KILLS = "oom_kill"

UNKNOWN = 255
"""What multiprocessing says of a worker whose fork server is gone, and with it the real exit code."""


@dataclass(frozen=True)
class Death:
    """The end of a worker that did not finish its item."""

    process_id: int
    how: str
    was_killed: bool = False
    """By SIGKILL, which is what everything sends that watches memory."""
    out_of_memory: bool = False
    """The kernel says so."""

    def __str__(self) -> str:
        return f"process {self.process_id} {self.how}"


class DeathReader:
    """Turns exit codes into deaths. Made before the workers are: it compares the kernel's count of kills."""

    def __init__(self) -> None:
        self.explained_kills = out_of_memory_kills()

    def read(self, process_id: int, exit_code: int | None) -> Death:
        """Describe the end of a process by its exit code (-9: by signal 9; None: it had to be ended)."""
        if exit_code is None:
            return Death(process_id, "closed its pipe before its work was done, and did not end")
        if exit_code == UNKNOWN:
            how = "was lost with the fork server that had started it, which is killed when memory runs out"
            return Death(process_id, how, was_killed=True)
        if exit_code >= 0:
            return Death(process_id, f"ended with exit code {exit_code} before its work was done")
        try:
            name = signal.Signals(-exit_code).name
        except ValueError:  # a real-time signal
            name = str(-exit_code)
        was_killed = exit_code == -signal.SIGKILL
        out_of_memory = was_killed and out_of_memory_kills() > self.explained_kills
        self.explained_kills += out_of_memory  # several may have been killed before the first was noticed
        why = " (the kernel: out of memory)" if out_of_memory else ""
        return Death(process_id, f"was killed by signal {name}{why}", was_killed, out_of_memory)


def advice(deaths: list[Death], workers: int) -> str:
    """Return what to do about the deaths."""
    more_room = (
        f"start fewer workers with `--set execution.workers=N` (now {workers}), or make smaller shards with "
        f"`--set download.shard_bytes=N`"
    )
    if any(death.out_of_memory for death in deaths):
        return f"they ran out of memory: {more_room}"
    if any(death.was_killed for death in deaths):
        return f"if nobody killed them by hand, the machine was out of memory: {more_room}"
    return "the log lines above may say why; mend that and run again, what is done is kept"


def out_of_memory_kills() -> int:
    """Return how many processes the kernel has killed for want of memory: of our cgroup, else of the machine.

    0 where nothing is counted, as on macOS.
    """
    for path in (*_cgroup_counters(), VMSTAT):
        with contextlib.suppress(OSError, ValueError):
            for line in path.read_text().splitlines():
                name, _, count = line.partition(" ")
                if name == KILLS:
                    return int(count)
    return 0


def _cgroup_counters() -> Iterator[Path]:
    """Yield files that may count the kills of this process' cgroup, the likeliest first.

    In a container the path of the cgroup may begin above what is mounted, so those further up are tried too.
    """
    try:
        lines = CGROUP.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root, counter = HIERARCHIES, "memory.events"
        elif "memory" in controllers.split(","):
            root, counter = HIERARCHIES / "memory", "memory.oom_control"
        else:
            continue
        folder = PurePosixPath(path)
        for above in (folder, *folder.parents):
            yield root / above.relative_to("/") / counter
