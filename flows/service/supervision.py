"""Processes that are kept running: one that ends is started again, later each time that it ends soon."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from flows.service.parent import end_with_parent

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds before a service that ended is started again; the pause doubles each time."""

HEALTHY_SECONDS = 300.0
"""A service that lived for so long starts over with the first pause."""

STOP_SECONDS = 15.0
"""Time for a service to end when it is asked to."""


class Service:
    """One process of `pile up`, started again whenever it ends."""

    def __init__(
        self,
        name: str,
        command: list[str],
        environment: Mapping[str, str],
        log_file: Path,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.command = command
        self.environment = environment
        self.log_file = log_file
        self.say = say
        self.clock = clock
        self.pause = FIRST_PAUSE
        self.again_at: float | None = None
        """When it is started again; None while it runs."""
        self.say(f"starting {name}")
        log_file.write_bytes(b"")
        self._start()

    def ended(self) -> int | None:
        """Return the exit code if the process is not running."""
        return self.process.poll()

    def tend(self) -> None:
        """Start it again if it ended and its pause is over; called about once a second."""
        code = self.process.poll()
        if code is None:
            return
        now = self.clock()
        if self.again_at is None:
            if now - self.started >= HEALTHY_SECONDS:
                self.pause = FIRST_PAUSE
            self.again_at = now + self.pause
            self.say(
                f"{self.name} ended ({_how(code)}); starting it again in {self.pause:.0f} s; see {self.log_file}"
            )
            self.pause = min(2 * self.pause, LONGEST_PAUSE)
        elif now >= self.again_at:
            self._start()
            self.say(f"{self.name} is started again")

    def stop(self) -> None:
        """End the process and its children."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(timeout=STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()

    def _start(self) -> None:
        # Output goes to files: a terminal full of server lines would hide what `pile up` says.
        with self.log_file.open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches us alone; we stop the services in order
                preexec_fn=end_with_parent if sys.platform == "linux" else None,
            )
        self.started = self.clock()
        self.again_at = None


def prefect_command(*arguments: str) -> list[str]:
    """Return the command line of Prefect in this environment."""
    return [sys.executable, "-m", "prefect", *arguments]


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
