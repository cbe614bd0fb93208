"""The verb that runs a recipe. Results go to standard output, what happens meanwhile to standard error."""

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator

from flows.command.output import say
from flows.command.running.asked import asked
from flows.command.running.detach import run_detached
from flows.command.store.finding import find_run
from flows.command.store.show import print_results
from flows.console.json_lines import JsonLines
from flows.console.plain import PlainConsole
from flows.planning import attempt_lines, make_plan
from flows.runs.events import Event, Listener, RunFinished, StageProgress, StageStarted, listening
from flows.runs.log_lines import kept_until_the_run_begins
from flows.runs.request import RUN_COMMAND, Request, new_run_id
from flows.runs.run_stages import record_cached_run
from flows.service import settings
from storage.errors import InputError
from storage.wording import progress_text


@kept_until_the_run_begins()
def run(options: argparse.Namespace) -> int:
    """Run a recipe: through Prefect, or not at all when every stage is finished."""
    request = asked(options, options.target, options.force)
    if options.detach:
        return run_detached(options, request)
    return run_request(request, options)


def run_request(request: Request, options: argparse.Namespace) -> int:
    """Run what was asked for, show it while it goes on, and print what came of it."""
    plans = make_plan(request.steps, request.store, request.force, request.recipe.name)
    for line in [] if options.quiet else attempt_lines(plans):
        say(line)
    with _watched(options), _way_on():
        if all(plan.state == "cached" for plan in plans):
            run_id = new_run_id()
            record_cached_run(request, run_id, plans)
            if not options.quiet:
                say("every stage is finished, nothing to do")
        else:
            os.environ[RUN_COMMAND] = request.command  # Prefect hands on what a recipe is, not what was typed
            run_id = _run_with_prefect(options.recipe, request)
    if not options.json:
        with contextlib.suppress(BrokenPipeError):  # whoever reads has seen enough
            print_results(request.store, find_run(request.store, run_id))
    return 0


def _run_with_prefect(recipe: str, request: Request) -> str:
    settings.apply()
    with settings.quick_imports():
        from flows.service.flow_run import run_flow  # noqa: PLC0415 - seconds, and Prefect's settings come before

    return run_flow(
        recipe=recipe,
        overrides=dict(request.overrides),
        target=request.target,
        force=sorted(request.force),
        store=request.store.url,
    )


@contextlib.contextmanager
def _watched(options: argparse.Namespace) -> Iterator[None]:
    """Show the run while it goes on: as JSON if asked for, drawn on a terminal, line by line elsewhere."""
    with contextlib.ExitStack() as stack:
        if options.json:
            stack.enter_context(listening(_or_silent(JsonLines().hear)))
        elif sys.stderr is None:
            pass  # closed: there is nobody to tell
        elif not options.quiet and sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            from flows.console.terminal import TerminalConsole  # noqa: PLC0415 - rich, for a terminal alone

            console = stack.enter_context(TerminalConsole())
            stack.enter_context(listening(_or_silent(console.hear)))
        elif not options.quiet:
            stack.enter_context(listening(_or_silent(PlainConsole().hear)))
        yield


def _or_silent(show: Listener) -> Listener:
    """Return a console that says no more once it cannot: a closed pipe or terminal must not end a run."""
    is_open = True

    def hear(event: Event) -> None:
        nonlocal is_open
        if is_open:
            try:
                show(event)
            except OSError:
                is_open = False

    return hear


@contextlib.contextmanager
def _way_on() -> Iterator[None]:
    """Note on what ends a run before its end how far it was, and the command that continues it."""
    heard: dict[type[Event], Event] = {}
    with listening(lambda event: heard.update({type(event): event})):
        try:
            yield
        except BaseException as error:
            end = heard.get(RunFinished)
            if isinstance(end, RunFinished):
                first = "after that change, " if isinstance(error, InputError) else ""
                error.add_note(f"{_place(heard)}{first}continue with:\n  {end.next}")
            raise


def _place(heard: dict[type[Event], Event]) -> str:
    stage, progress = heard.get(StageStarted), heard.get(StageProgress)
    if not isinstance(stage, StageStarted):
        return ""
    place = f"stopped in {stage.stage}, stage {stage.number} of {stage.of}"
    if isinstance(progress, StageProgress) and progress.stage == stage.stage:
        so_far = progress_text(progress.done, progress.total, progress.unit)
        place += f", at {so_far}" if so_far else ""
    return f"{place}; "
