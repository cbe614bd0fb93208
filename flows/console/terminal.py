"""A run on a terminal: a line that grows for the stage at work, one that stays for each that has ended."""

from dataclasses import replace

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from flows.console.wording import NAME_WIDTH, begin_line, finished_text, how_it_goes
from flows.runs.events import Event, RunStarted, StageFinished, StageProgress, StageStarted
from flows.summary import MAIN_COUNTS

BAR_WIDTH = 10

BESIDE = 1 + NAME_WIDTH + BAR_WIDTH + 3
"""Columns of the growing line before its text: mark, name and bar, each with a blank behind it."""

MARKS = {"done": ("✓", "green"), "cached": ("·", "dim"), "running": (" ", "")}
"""Mark and style of a stage by its state; every other state is one that nobody wished for."""


class TerminalConsole:
    """Draws on standard error, so that what a command returns can be piped."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self.live = Live(console=self.console, refresh_per_second=4, transient=True)
        self.name = ""

    def __enter__(self) -> "TerminalConsole":
        self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    def hear(self, event: Event) -> None:
        """Show an event."""
        if isinstance(event, RunStarted):
            self.console.print(Text(begin_line(event)))
        elif isinstance(event, StageStarted):
            self.live.update(self._line(event.stage, None, "begins"))
        elif isinstance(event, StageProgress):
            share = event.done / event.total if event.total else 0.0
            text = how_it_goes(event)
            if len(text) > self.console.width - BESIDE:  # the time that is left says as much as the rate
                text = how_it_goes(replace(event, rate=None))
            self.live.update(self._line(event.stage, share, text))
        elif isinstance(event, StageFinished):
            self.live.update(Text(""))
            mark, style = MARKS.get(event.state, ("✗", "red"))
            line = _shortened(event, f"{mark} {event.stage:{NAME_WIDTH}} ", self.console.width)
            self.console.print(Text(line, style=style), overflow="ellipsis", no_wrap=True)

    def _line(self, stage: str, share: float | None, text: str) -> Table:
        line = Table.grid(padding=(0, 1))
        line.add_column(width=1)
        line.add_column(width=NAME_WIDTH, no_wrap=True)
        line.add_column(width=BAR_WIDTH)
        line.add_column(no_wrap=True, overflow="ellipsis")
        # Without a share it pulses: the stage is at work and has not said how far it is.
        bar = ProgressBar(total=1.0, completed=share or 0.0, width=BAR_WIDTH, pulse=share is None)
        line.add_row(">", stage, bar, text)
        return line


def _shortened(event: StageFinished, begin: str, width: int) -> str:
    """Return the line of a stage that has ended; what it passes on stands first and gives way to what it makes."""
    counts = {name: event.counts[name] for name in MAIN_COUNTS if name in event.counts}
    while len(line := begin + finished_text(replace(event, counts=counts))) > width and len(counts) > 1:
        del counts[next(iter(counts))]
    return line
