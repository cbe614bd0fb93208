"""A Prefect server of our own, which ends with this process."""

import atexit
import fcntl
import multiprocessing
import os
import socket
from multiprocessing.context import ForkProcess
from pathlib import Path

from flows.service.server import START_SECONDS, is_server
from flows.service.server_process import keep_serving
from storage.errors import Fault

STOP_SECONDS = 10.0
"""How long a server may take to end when it is asked to."""


def start_server(home: Path) -> str:
    """Start a server whose database lies in `home`; return the URL of its API.

    Raises: Fault if it does not answer.
    """
    # One at a time: two servers that set up the same new database at once break each other. The lock goes with
    # the process, and its file is never removed.
    home.mkdir(parents=True, exist_ok=True)
    with (home / "embedded-server.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _start_server_alone(home)


def _start_server_alone(home: Path) -> str:
    log_file = home / "embedded-server.log"
    with socket.create_server(("127.0.0.1", 0)) as listener:  # a request waits in it until the server takes it
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
        arguments = (listener, log_file, os.getpid(), _open_descriptors(but=listener.fileno()))
        server = multiprocessing.get_context("fork").Process(target=keep_serving, args=arguments)
        server.start()
    atexit.register(_stop, server)
    # The server alone holds the socket now: if it ends, so does the wait.
    if not is_server(url, START_SECONDS):
        raise Fault(f"the Prefect server of this run must answer at {url}, but did not; see {log_file}")
    return url


def _stop(server: ForkProcess) -> None:
    server.terminate()
    server.join(STOP_SECONDS)
    if server.is_alive():
        server.kill()
        server.join()


def _open_descriptors(but: int) -> list[int]:
    with os.scandir("/dev/fd") as entries:
        found = {int(entry.name) for entry in entries} - {0, 1, 2, but}
    return [descriptor for descriptor in sorted(found) if _is_open(descriptor)]


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False  # the one that listed them
    return True
