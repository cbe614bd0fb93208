"""A Prefect server of our own, which ends with this process."""

import atexit
import ctypes
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from flows.service.server import START_SECONDS, is_server
from flows.service.settings import embedded_server
from storage.errors import Fault

PR_SET_PDEATHSIG = 1
"""Number of the Linux call that asks for a signal when the parent dies (prctl(2))."""

POLL_SECONDS = 0.05
"""How often a server that starts is asked whether it answers: each time costs well below a millisecond."""


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
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log_file = home / "embedded-server.log"
    with log_file.open("ab") as output:
        server = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("server_process.py")), str(port)],
            env={**os.environ, **embedded_server()},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C reaches the run first, which still talks to the server
            preexec_fn=end_with_parent if sys.platform == "linux" else None,
        )
    atexit.register(_stop, server)
    url = f"http://127.0.0.1:{port}/api"
    end = time.monotonic() + START_SECONDS
    while not is_server(url):
        if server.poll() is not None or time.monotonic() > end:
            raise Fault(f"the Prefect server of this run must answer at {url}, but did not; see {log_file}")
        time.sleep(POLL_SECONDS)
    return url


def end_with_parent() -> None:
    """Have the system send SIGTERM to the present process when its parent ends, however that does."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(timeout=10)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
