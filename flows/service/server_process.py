"""The process of an embedded Prefect server: a fork of the one that runs the flow.

A server started from nothing would import again what the flow's process has imported, two seconds of CPU.
"""

import logging
import os
import signal
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn

from prefect.context import refresh_global_settings_context
from prefect.settings import Settings

from flows.service.parent import end_with_parent
from flows.service.settings import embedded_server, quick_imports

USED = ("/admin", "/flows", "/flow_runs", "/task_runs", "/logs", "/artifacts", "/events")
"""Parts of Prefect's API that a flow run asks for. FastAPI prepares a part when a request first passes it on the
way to its own, so these come first, and the others are prepared only if somebody asks for one."""


PAUSE_SECONDS = 1.0
"""Before a server that was killed is started again."""


def keep_serving(listener: socket.socket, log_file: Path, parent: int, inherited: list[int]) -> None:
    """Have a server answer on `listener` until SIGTERM, or the end of `parent`, the process that was forked.

    The server is a fork of the present process. When it is killed another takes its place, at the same socket, in
    which requests wait meanwhile; what it knew stands in its database. When it ends by itself it cannot be helped.
    `inherited` are the descriptors of the parent that are none of the server's business.
    """
    _separate(log_file, parent, inherited)
    keeper = _Keeper()
    while keeper.start(listener):
        time.sleep(PAUSE_SECONDS)


class _Keeper:
    """The parent of the server."""

    def __init__(self) -> None:
        self.server = 0
        self.is_ending = False

    def start(self, listener: socket.socket) -> bool:
        """Start a server and wait for its end; return whether it was killed, and by others."""
        keeper = os.getpid()
        self.server = os.fork()
        if not self.server:
            _be_server(listener, keeper)
        signal.signal(signal.SIGTERM, self._end)
        _, status = os.waitpid(self.server, 0)
        return os.WIFSIGNALED(status) and not self.is_ending

    def _end(self, number: int, _frame: object) -> None:
        self.is_ending = True
        os.kill(self.server, number)


def _be_server(listener: socket.socket, keeper: int) -> NoReturn:
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _end_with(keeper)
        _serve(listener)
    except BaseException:  # noqa: BLE001 - whatever it is, nothing of the keeper's may go on in its fork
        traceback.print_exc()
    os._exit(1)


def _serve(listener: socket.socket) -> None:
    os.environ.update(embedded_server())
    refresh_global_settings_context()
    with quick_imports():
        import uvicorn  # noqa: PLC0415 - for the server alone
        from prefect.server.api import server  # noqa: PLC0415 - likewise, and it reads the settings

        # Which of several apps of a process is meant; there is one, and all settings are written out for the name.
        Settings.hash_key = lambda _: "embedded"  # type: ignore[assignment]
        in_order: Any = tuple(sorted(server.API_ROUTERS, key=lambda router: router.prefix not in USED))
        server.API_ROUTERS = in_order
        app = server.create_app(ephemeral=True)
    config = uvicorn.Config(app, log_level="error", access_log=False, lifespan="on")
    uvicorn.Server(config).run(sockets=[listener])


def _separate(log_file: Path, parent: int, inherited: list[int]) -> None:
    """Leave the terminal, files, locks, log and signal handlers of the parent alone."""
    os.setsid()  # Ctrl-C reaches the run first, which still talks to the server
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_DFL)
    _end_with(parent)
    output = os.open(log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for source, stream in ((os.open(os.devnull, os.O_RDONLY), 0), (output, 1), (output, 2)):
        os.dup2(source, stream)
    for descriptor in inherited:  # locks among them
        os.close(descriptor)
    sys.stdout = sys.stderr = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115 - open as long as the process
    logging.getLogger().handlers.clear()


def _end_with(parent: int) -> None:
    if sys.platform == "linux":
        end_with_parent()
        if os.getppid() != parent:
            os._exit(1)  # it ended before it could be asked for
