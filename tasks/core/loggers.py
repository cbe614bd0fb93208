"""The loggers whose lines people see. Loads little, so that the command line can show lines at once."""

import contextlib
import logging
from collections.abc import Iterator

LOGGERS = ("storage", "tasks", "model", "flows", "datatrove")
"""Ours, and datatrove's as forwarded by tasks.executors."""


@contextlib.contextmanager
def only_from(level: int) -> Iterator[None]:
    """Let these loggers say nothing below a level: whoever calls says what is to be said."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, old in zip(loggers, before, strict=True):
            logger.setLevel(old)


@contextlib.contextmanager
def heard_by(handler: logging.Handler) -> Iterator[None]:
    """Let a handler have what these loggers say from its level on."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    for logger in loggers:
        logger.addHandler(handler)
        if logger.getEffectiveLevel() > handler.level:
            logger.setLevel(handler.level)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
