"""What a flow run prints is read by its worker; a run whose worker is gone goes on without a reader."""

import logging
import os

from prefect.logging.handlers import PrefectConsoleHandler


def outlive_worker() -> None:
    """Let Prefect's lines go nowhere once nobody reads them.

    Rich, which prints them, ends the process otherwise: a training of weeks would stop at its next log line.
    """
    loggers = [logging.getLogger(), *map(logging.getLogger, list(logging.root.manager.loggerDict))]
    for handler in {handler for logger in loggers for handler in logger.handlers}:
        if isinstance(handler, PrefectConsoleHandler):
            handler.console.on_broken_pipe = _print_nowhere  # type: ignore[method-assign]


def _print_nowhere() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    os.close(nowhere)
