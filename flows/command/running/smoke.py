"""The verb that tries a recipe out: all of its stages in small, in a store of its own below the given one."""

import argparse
import contextlib
import logging
import sys
from collections.abc import Iterator
from dataclasses import replace

from flows.command.output import say
from flows.command.running.asked import asked
from flows.command.running.run import run_request
from flows.recipes.smoke import smoke_changes
from flows.runs.log_lines import kept_until_the_run_begins
from flows.runs.request import Request, open_store
from storage.wording import counted
from tasks.core.loggers import heard_by

FOLDER = "smoke"
"""Where it lies: what was found once is not made again by the next try, and nothing else looks there."""


@kept_until_the_run_begins()
def smoke(options: argparse.Namespace) -> int:
    """Send a sample through every stage, and say what would go wrong in the run itself."""
    request = asked(options, options.target)
    changes, said = smoke_changes(request.recipe)
    in_small = Request.checked(
        options.recipe,
        {**request.overrides, **changes},
        options.target,
        [],
        f"{open_store(options.store).url}/{FOLDER}",
    )
    command = request.command.replace("pile run", "pile smoke", 1)
    in_small = replace(in_small, command=command)
    if not options.quiet:
        say(f"a run in small, with {'; '.join(said)}")
    with _warnings() as warnings:
        run_request(in_small, options)
    if not options.json:
        stages = counted(len(in_small.steps), "stages")
        say(f"\n{request.recipe.name} went through {stages} in small; to run it:\n  {request.command}", sys.stdout)
        for warning in dict.fromkeys(warnings):
            say(f"but look at: {warning}", sys.stdout)
    return 0


@contextlib.contextmanager
def _warnings() -> Iterator[list[str]]:
    """Collect what is warned of: it stands far above the end of a run."""
    found: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: found.append(record.getMessage())  # type: ignore[method-assign]
    with heard_by(handler):
        yield found
