"""The processes of an embedded Prefect server: forks of the one that runs the flow.

A server started from nothing would import again what the flow's process has imported, two seconds of CPU. Between
the two stands a guard, which starts the server again when it is killed.
"""

import contextlib
import fcntl
import logging
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, BinaryIO, NoReturn

from prefect.context import refresh_global_settings_context
from prefect.settings import Settings

from flows.service.parent import end_with_parent
from flows.service.settings import embedded_server, quick_imports

USED = ("/admin", "/flows", "/flow_runs", "/task_runs", "/logs", "/artifacts", "/events")
"""Parts of Prefect's API that a flow run asks for. FastAPI prepares a part when a request first passes it on the
way to its own, so these come first, and the others are prepared only if somebody asks for one."""

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)

FIRST_PAUSE, LONGEST_PAUSE, HEALTHY_SECONDS = 1.0, 60.0, 300.0
"""Seconds before a server that was killed is started again; the pause doubles until one has lived long enough."""

ANSWER_SECONDS = 5
"""How long a server that is to end may take for the answers that it owes; after twice that it is killed."""


def start_guard(listener: socket.socket, log: BinaryIO) -> int:
    """Fork a guard, whose server answers on `listener` and writes to `log`; return the guard's process id.

    It leads a process group of its own, and both end with the present process. A server that ends by itself, since
    it cannot start, is not started again: the guard ends too, and with it the socket.
    """
    for stream in filter(None, (sys.stdout, sys.stderr)):
        with contextlib.suppress(OSError):
            stream.flush()  # else the fork would write again what waits in them
    parent = os.getpid()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # the fork has no handler of its own yet
    try:
        guard = os.fork()
        if not guard:
            _be(lambda: _guard(listener, log, parent))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return guard


def _be(process: Callable[[], None]) -> NoReturn:
    """Do what the present process was forked for and leave: nothing of its parent's may go on in it."""
    try:
        process()
    except BaseException:  # noqa: BLE001 - whatever it is
        traceback.print_exc()
    os._exit(1)


def _guard(listener: socket.socket, log: BinaryIO, parent: int) -> None:
    _separate(listener, log, parent)
    guard, pause, started = _Guard(), FIRST_PAUSE, time.monotonic()
    while guard.serve(listener):
        if time.monotonic() - started > HEALTHY_SECONDS:
            pause = FIRST_PAUSE
        time.sleep(pause)
        pause, started = min(2 * pause, LONGEST_PAUSE), time.monotonic()


class _Guard:
    """The parent of the server. SIGTERM ends both, and SIGKILL a server that does not."""

    def __init__(self) -> None:
        self.server = 0
        self.is_ending = False
        signal.signal(signal.SIGTERM, self._end)
        signal.signal(signal.SIGALRM, self._kill)

    def serve(self, listener: socket.socket) -> bool:
        """Start a server and wait for its end; return whether it was killed, and by others."""
        guard = os.getpid()
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        server = os.fork()
        if not server:
            _be(lambda: _serve(listener, guard))
        self.server = server
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        _, status = os.waitpid(server, 0)
        self.server = 0
        return os.WIFSIGNALED(status) and not self.is_ending

    def _end(self, number: int, _frame: object) -> None:
        self.is_ending = True
        if not self.server:
            os._exit(0)  # between two servers
        os.kill(self.server, number)
        signal.alarm(2 * ANSWER_SECONDS)

    def _kill(self, _number: int, _frame: object) -> None:
        if self.server:
            os.kill(self.server, signal.SIGKILL)


def _serve(listener: socket.socket, guard: int) -> None:
    _let_signals_end_it(guard)
    os.environ.update(embedded_server())
    refresh_global_settings_context()
    with quick_imports():
        import uvicorn  # noqa: PLC0415 - for the server alone
        from prefect.server.api import server  # noqa: PLC0415 - likewise, and it reads the settings

        # Prefect names an app by all its settings, 0.2 s to write out, to find it again. Here there is one.
        Settings.hash_key = lambda _: "embedded"  # type: ignore[assignment]
        in_order: Any = tuple(sorted(server.API_ROUTERS, key=lambda router: router.prefix not in USED))
        server.API_ROUTERS = in_order
        app = server.create_app(ephemeral=True)
    config = uvicorn.Config(
        app, log_level="error", access_log=False, lifespan="on", timeout_graceful_shutdown=ANSWER_SECONDS
    )
    uvicorn.Server(config).run(sockets=[listener])


def _separate(listener: socket.socket, log: BinaryIO, parent: int) -> None:
    """Leave the terminal, files, locks, log and signal handlers of the parent alone."""
    os.setsid()  # Ctrl-C reaches the run first, which still talks to the server
    _let_signals_end_it(parent)
    with open(os.devnull, "rb") as nothing:
        streams = [above_standard_streams(file.fileno()) for file in (nothing, log, log)]
    for stream, descriptor in enumerate(streams):
        os.dup2(descriptor, stream)
    for descriptor in map(int, os.listdir("/dev/fd")):  # locks of the parent among them
        if descriptor > 2 and descriptor != listener.fileno():
            with contextlib.suppress(OSError):  # the one that listed them
                os.close(descriptor)
    sys.stdout = sys.stderr = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115 - open as long as the process
    logging.getLogger().handlers.clear()


def above_standard_streams(descriptor: int) -> int:
    """Return a copy of a descriptor that is none of a standard stream, though one of those may be closed."""
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)


def _let_signals_end_it(parent: int) -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    if sys.platform == "linux":
        end_with_parent()
        if os.getppid() != parent:
            os._exit(1)  # it ended before it could be asked for
