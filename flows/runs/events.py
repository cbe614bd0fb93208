"""What happens in a run, told to whoever listens: the console, the run's record, its log.

Listeners are known to the process, not handed on from function to function: between the command and the stages
stands Prefect, which carries nothing but JSON.
"""

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from storage.artifacts.records import RunState, StageState, now


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened in a run; a line of `pile run --json`."""

    run: str
    """The run's id."""
    time: str = field(default_factory=now)

    def to_json(self) -> dict[str, Any]:
        """Return the event as JSON, with its name: `StageStarted` is `stage-started`."""
        name = re.sub(r"(?<!^)(?=[A-Z])", "-", type(self).__name__).lower()
        return {"event": name, **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class RunStarted(Event):
    """A run begins."""

    recipe: str
    target: str
    store: str
    stages: tuple[str, ...]
    """What it needs, in running order."""


@dataclass(frozen=True, kw_only=True)
class StageStarted(Event):
    """A stage is looked up, and built if it is not there."""

    stage: str
    number: int
    """Its place in the run, from 1."""
    of: int
    """Stages of the run."""


@dataclass(frozen=True, kw_only=True)
class StageProgress(Event):
    """A stage came further."""

    stage: str
    number: int
    of: int
    done: int
    total: int
    unit: str
    """What `done` and `total` count."""
    rate: float | None
    """Units per second, None before two reports."""
    eta_seconds: float | None
    """Time left at this rate."""
    note: str
    """What else the stage says, such as the loss."""


@dataclass(frozen=True, kw_only=True)
class StageFinished(Event):
    """A stage ended, at its end or before."""

    stage: str
    number: int
    of: int
    state: StageState
    seconds: float
    key: str
    """Of the artifact; empty if there is none."""
    content_digest: str
    counts: dict[str, int]
    """Of the artifact."""


@dataclass(frozen=True, kw_only=True)
class Logged(Event):
    """A log line."""

    level: str
    """`info`, `notice`, `warning`, `error` or `critical`."""
    logger: str
    message: str
    """Also the traceback of an exception that was logged, in lines below."""


@dataclass(frozen=True, kw_only=True)
class RunFinished(Event):
    """A run ended."""

    recipe: str
    state: RunState
    seconds: float
    error: str
    """Why it stopped before its end, else empty."""
    results: dict[str, str]
    """Stage -> key of its artifact."""
    next: str
    """The command that continues it, or that uses its result."""


EVENTS: tuple[type[Event], ...] = (
    RunStarted,
    StageStarted,
    StageProgress,
    StageFinished,
    Logged,
    RunFinished,
)

Listener = Callable[[Event], None]

_listeners: list[Listener] = []


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Let a listener hear all events of this process, whichever thread tells them, also several at once."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def tell(event: Event) -> None:
    """Hand an event to all listeners.

    No lock is held meanwhile: a listener may write to the store, which may wait, and log that it does.
    """
    for listener in tuple(_listeners):
        listener(event)
