"""A Prefect server of our own, which ends with this process."""

import atexit
import contextlib
import fcntl
import os
import signal
import socket
import time
from pathlib import Path
from typing import BinaryIO

from flows.service.server import START_SECONDS, is_server
from flows.service.server_process import above_standard_streams, start_guard
from storage.errors import Fault, InputError

STOP_SECONDS, LOOK_SECONDS = 10.0, 0.02
"""How long a server may take to end when it is asked to, and how often it is looked whether it has."""


def start_server(home: Path) -> str:
    """Start a server whose database lies in `home`; return the URL of its API.

    Raises: InputError if `home` cannot be used; Fault if the server does not answer.
    """
    # One at a time: two servers that set up the same new database at once break each other. The lock goes with
    # the process, and its file is never removed.
    with contextlib.ExitStack() as files:
        try:
            home.mkdir(parents=True, exist_ok=True)
            log = files.enter_context((home / "embedded-server.log").open("ab"))
            lock = files.enter_context((home / "embedded-server.lock").open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            raise InputError(
                f"PREFECT_HOME must be a folder that can be written to, but {home}: {error}"
            ) from error
        return _start_server_alone(log)


def _start_server_alone(log: BinaryIO) -> str:
    with _listener() as listener:  # a request waits in it until the server takes it
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
        guard = start_guard(listener, log)
    atexit.register(_stop, guard, os.getpid())
    # The guard and the server alone hold the socket now: if they end, so does the wait.
    if not is_server(url, START_SECONDS):
        raise Fault(f"the Prefect server of this run must answer at {url}, but did not; see {log.name}")
    return url


def _listener() -> socket.socket:
    with socket.create_server(("127.0.0.1", 0)) as first:
        return socket.socket(fileno=above_standard_streams(first.fileno()))


def _stop(guard: int, owner: int) -> None:
    """Ask guard and server to end, and after a while make them."""
    if os.getpid() != owner:
        return  # a fork of the run, which ends before it
    with contextlib.suppress(ProcessLookupError):
        os.kill(guard, signal.SIGTERM)
    end = time.monotonic() + STOP_SECONDS
    while not _has_ended(guard) and time.monotonic() < end:
        time.sleep(LOOK_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(guard, signal.SIGKILL)  # a server may outlive its guard


def _has_ended(child: int) -> bool:
    try:
        return os.waitpid(child, os.WNOHANG) != (0, 0)
    except ChildProcessError:  # somebody else took its exit code
        return True
