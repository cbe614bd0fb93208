"""Which process, on which machine: enough to ask later whether it still lives."""

import os
import socket
from pathlib import Path


def host_identity() -> str:
    """Name this machine, boot and process namespace: inside one, process numbers can be compared."""
    parts = [socket.gethostname()]
    try:
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    except OSError:  # not Linux: process starts are unknown there too, so only expiry counts
        pass
    return " ".join(parts)


def start_of_process(process_id: int) -> str:
    """Return when a process started, in kernel ticks; empty if it is gone or cannot be asked."""
    try:
        status = Path(f"/proc/{process_id}/stat").read_text()
    except OSError:
        return ""
    fields = status.rpartition(")")[2].split()  # the name before ')' may itself hold spaces
    return "" if fields[0] == "Z" else fields[19]
