"""How a run is stopped, and which word that has everywhere: in its record, on the console, in the UI."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the command imports this at once, and records bring pydantic
    from storage.artifacts.records import RunState

STOPPED_EXIT_CODE = 75
"""Of a run that was told to stop and can be continued: EX_TEMPFAIL of sysexits.h, `try again later`."""


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP, raised where the program is, so that everything is cleaned up on the way out."""


def raise_when_told() -> None:
    """Raise Terminated at SIGTERM, and at SIGHUP unless the command was started to outlive its terminal."""
    signal.signal(signal.SIGTERM, _raise)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup
        signal.signal(signal.SIGHUP, _raise)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Let no second signal keep this process from writing down what the first one ended."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def _raise(*_: object) -> None:
    raise Terminated


def state_after(error: BaseException) -> "RunState":
    """Return the state of what this exception ended."""
    if is_termination(error):
        return "cancelled"
    return "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"


def is_termination(error: BaseException) -> bool:
    """Tell whether this is a SIGTERM: ours, or that which Prefect makes of it while a flow runs."""
    prefect = sys.modules.get("prefect.exceptions")  # not imported for this: it takes a second
    signals = (Terminated, prefect.TerminationSignal) if prefect else (Terminated,)
    return isinstance(error, signals)


def reason_of(error: BaseException) -> str:
    """Return in words what ended it."""
    if is_termination(error):
        return "it was told to stop"
    if isinstance(error, KeyboardInterrupt):
        return "Ctrl-C"
    return (
        str(error)
        if isinstance(error, RuntimeError | ValueError | OSError)
        else f"{type(error).__name__}: {error}"
    )
