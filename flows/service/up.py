"""`pile up`: a Prefect server with its UI, workers and the deployments, all on this machine."""

import importlib.resources
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flows.service.server import START_SECONDS, is_server
from flows.service.settings import quiet_prefect
from storage.errors import Fault, InputError

POOLS = ("cpu", "gpu")

PACKAGES = ("flows", "infra", "model", "storage", "tasks")
CODE = Path(__file__).parents[2]


@dataclass
class _Service:
    name: str
    process: subprocess.Popen[bytes]


class LocalServices:
    """Starts the services, waits until one ends or a signal comes, and stops what it started."""

    def __init__(self, host: str, port: int, store: str, say: Callable[[str], None]) -> None:
        self.address = f"http://{host}:{port}"
        self.host = host
        self.port = port
        self.say = say
        self.services: list[_Service] = []
        self.environment = {
            **os.environ,
            **quiet_prefect(),
            "PREFECT_API_URL": f"{self.address}/api",
            "PILE_STORE": store,
        }

    def run(self) -> None:
        """Bring everything up and stay until Ctrl-C or SIGTERM.

        Raises: InputError if the port is taken or the folder hides our packages; Fault if a service does not start
        or ends by itself.
        """
        self._check_port()
        check_folder(Path.cwd())
        try:
            self._start("server", ["server", "start", "--host", self.host, "--port", str(self.port)])
            self._wait_for_server()
            self._register_deployments()
            for pool in POOLS:
                self._start(f"worker-{pool}", ["worker", "start", "--pool", pool, "--name", f"{pool}-1"])
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

    def _start(self, name: str, arguments: list[str]) -> None:
        self.say(f"starting {name}")
        # Output goes to files: a terminal full of server lines would hide what `pile up` says.
        with self._log_file(name).open("wb") as log_file:
            process = subprocess.Popen(
                [sys.executable, "-m", "prefect", *arguments],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log_file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches us alone; we stop the services in order
            )
        self.services.append(_Service(name, process))

    def _log_file(self, name: str) -> Path:
        folder = Path(os.environ.get("PREFECT_HOME", Path.home() / ".prefect")) / "pile-up"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{name}.log"

    def _wait_for_server(self) -> None:
        end = time.monotonic() + START_SECONDS
        while not is_server(self.environment["PREFECT_API_URL"]):
            self._check_alive()
            if time.monotonic() > end:
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

    def _prefect(self, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(
            [sys.executable, "-m", "prefect", *arguments],
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
        while True:
            self._check_alive()
            time.sleep(1.0)

    def _check_alive(self) -> None:
        for service in self.services:
            if (code := service.process.poll()) is not None:
                raise Fault(
                    f"{service.name} must keep running, but ended with {code}; see {self._log_file(service.name)}"
                )

    def _stop(self) -> None:
        for service in reversed(self.services):  # workers first: they report to the server
            if service.process.poll() is None:
                service.process.send_signal(signal.SIGINT)
                try:
                    service.process.wait(timeout=15)
                except subprocess.TimeoutExpired:
                    os.killpg(service.process.pid, signal.SIGKILL)
                    service.process.wait()


def check_folder(folder: Path) -> None:
    """Raise InputError if `folder` holds other packages of our names: Prefect imports from where it is started."""
    hiding = [path.name for name in PACKAGES for path in (folder / name, folder / f"{name}.py") if path.exists()]
    if hiding and folder.resolve() != CODE.resolve():
        raise InputError(
            f"`pile up` must start in a folder without {', '.join(PACKAGES)}, which Prefect would import for "
            f"ours, but {folder} holds {', '.join(hiding)}; start it in another folder"
        )
