"""How the console words what happens: numbers that fit a line of 80 columns."""

from flows.runs.events import RunStarted, StageFinished, StageProgress
from flows.summary import describe
from storage.wording import amount, duration, progress_text

NAME_WIDTH = 15
"""Of the longest name of a stage, `train-tokenizer`."""

STATE_WIDTH = 6
"""Of `cached`; longer ones come once, at the end."""


def begin_line(event: RunStarted) -> str:
    """Return what is said at the beginning of a run."""
    return f"run {event.run}: {event.recipe}, {len(event.stages)} stages, store {event.store}"


def how_it_goes(event: StageProgress) -> str:
    """Return how far a stage is, how fast, when it will be done, and what it says."""
    parts = [*filter(None, [progress_text(event.done, event.total, event.unit)])]
    if event.rate is not None:
        slow = event.rate < 10 and not event.unit.startswith("bytes")
        parts.append(f"{event.rate:.2g}/s" if slow else f"{amount(event.rate, event.unit)}/s")
    if event.eta_seconds:
        parts.append(f"{duration(event.eta_seconds)} left")
    if event.note:
        parts.append(event.note)
    return ", ".join(parts)


def finished_text(event: StageFinished) -> str:
    """Return what a stage came to; to look one up takes no time worth telling."""
    time = "" if event.state == "cached" else duration(event.seconds)
    return f"{event.state:{STATE_WIDTH}} {time:>8}  {describe(event.counts)}".rstrip()
