"""`pile up`: a Prefect server with its UI, workers and the deployments, all on this machine."""

import contextlib
import importlib.resources
import itertools
import os
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from flows.service.server import START_SECONDS, is_server
from flows.service.settings import LOOPBACK, quiet_prefect, unproxied
from flows.service.supervision import Service, prefect_command
from storage.errors import Fault, InputError

POOLS = ("cpu", "gpu")

FLOW = "pile-pipeline"
"""Name of the flow, whose module takes seconds to import."""

CHECK_SECONDS = 30
"""How often runs of this machine are looked at whose process may be gone: sooner than heartbeats tell."""

PACKAGES = ("flows", "infra", "model", "storage", "tasks")
CODE = Path(__file__).parents[2]


class LocalServices:
    """Starts the services, keeps them running until a signal comes, and stops what it started."""

    def __init__(self, host: str, port: int, store: str, say: Callable[[str], None]) -> None:
        self.address = f"http://{host}:{port}"
        self.host = host
        self.port = port
        self.say = say
        self.services: list[Service] = []
        self.told: set[UUID] = set()
        """Runs that were told to stop."""
        self.environment = {
            **os.environ,
            **quiet_prefect(),
            **unproxied(*LOOPBACK, host),
            "PREFECT_API_URL": f"{self.address}/api",
            "PILE_STORE": store,
        }

    def run(self) -> None:
        """Bring everything up and stay until Ctrl-C or SIGTERM.

        A service that ends later is started again: a worker, and the server too, whose database is on disk.
        Raises: InputError if the port is taken or the folder hides our packages; Fault if the server does not
        start.
        """
        self._check_port()
        check_folder(Path.cwd())
        os.environ.update(self.environment)  # Prefect reads its settings when it is imported
        try:
            self._start("server", "server", "start", "--host", self.host, "--port", str(self.port))
            self._wait_for_server()
            self._register_deployments()
            self._end_zombies(register=True)
            for pool in POOLS:
                self._start(f"worker-{pool}", "worker", "start", "--pool", pool, "--name", f"{pool}-1")
            self._announce()
            self._watch()
        except KeyboardInterrupt:
            self.say("stopping")
        finally:
            self._stop()

    def _check_port(self) -> None:
        with socket.socket() as probe:
            if probe.connect_ex((self.host, self.port)) == 0:
                raise InputError(
                    f"port {self.port} of {self.host} must be free for the Prefect server, but something "
                    f"listens there; choose another with `pile up --port`"
                )

    def _start(self, name: str, *arguments: str) -> None:
        command = prefect_command(*arguments)
        self.services.append(Service(name, command, self.environment, self._log_file(name), self.say))

    def _log_file(self, name: str) -> Path:
        folder = Path(os.environ.get("PREFECT_HOME", Path.home() / ".prefect")) / "pile-up"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{name}.log"

    def _wait_for_server(self) -> None:
        end = time.monotonic() + START_SECONDS
        while not is_server(self.environment["PREFECT_API_URL"]):
            if self.services[0].ended() is not None or time.monotonic() > end:
                raise Fault(
                    f"the Prefect server must answer within {START_SECONDS:.0f} s, but did not; "
                    f"see {self._log_file('server')}"
                )
            time.sleep(0.3)

    def _register_deployments(self) -> None:
        self.say("registering work pools and deployments")
        for pool in POOLS:  # exit code 1: the pool is there already
            self._prefect("work-pool", "create", pool, "--type", "process", "--overwrite")
        file = importlib.resources.files("infra") / "prefect.yaml"
        done = self._prefect("--no-prompt", "deploy", "--all", "--prefect-file", str(file))
        if done.returncode:
            raise Fault(
                f"the deployments of {file} must register, but Prefect said: {done.stdout.decode()[-2000:]}"
            )

    def _end_zombies(self, *, register: bool = False) -> None:
        """Mark runs whose process is gone, also have the server do so from now on; stop cancelled ones."""
        from flows.service import zombies  # noqa: PLC0415 - after the settings

        if register:
            zombies.register()
        zombies.mark_dead_runs(FLOW)  # it logs each
        for name in zombies.stop_cancelled_runs(FLOW, self.told):
            self.say(f"run {name} is told to stop: it was cancelled, but no worker of now started it")

    def _prefect(self, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(
            prefect_command(*arguments),
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )

    def _announce(self) -> None:
        self.say(f"Prefect UI      {self.address}")
        self.say(f"artifact store  {self.environment['PILE_STORE']}")
        self.say(f"logs            {self._log_file('server').parent}")
        self.say("in another terminal:")
        self.say(f"  export PREFECT_API_URL={self.environment['PREFECT_API_URL']}")
        self.say("  prefect deployment run pile-pipeline/full --watch")
        self.say("ready; Ctrl-C stops everything")

    def _watch(self) -> None:
        for second in itertools.count(1):
            for service in self.services:
                service.tend()
            if second % CHECK_SECONDS == 0:
                with contextlib.suppress(Exception):  # the server may be away for a moment
                    self._end_zombies()
            time.sleep(1.0)

    def _stop(self) -> None:
        for service in reversed(self.services):  # workers first: they report to the server
            service.stop()


def check_folder(folder: Path) -> None:
    """Raise InputError if `folder` holds other packages of our names: Prefect imports from where it is started."""
    hiding = [path.name for name in PACKAGES for path in (folder / name, folder / f"{name}.py") if path.exists()]
    if hiding and folder.resolve() != CODE.resolve():
        raise InputError(
            f"`pile up` must start in a folder without {', '.join(PACKAGES)}, which Prefect would import for "
            f"ours, but {folder} holds {', '.join(hiding)}; start it in another folder"
        )
