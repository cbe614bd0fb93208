"""What the tests of commands share."""

import logging
from collections.abc import Iterator

import pytest

from tasks.core.loggers import LOGGERS


@pytest.fixture(autouse=True)
def loggers_as_before() -> Iterator[None]:
    """Take back that `main` shows log lines on its standard error: later tests would log into a closed stream."""
    before = {name: (logging.getLogger(name).level, logging.getLogger(name).propagate) for name in LOGGERS}
    handlers = {name: list(logging.getLogger(name).handlers) for name in LOGGERS}
    yield
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.level, logger.propagate = before[name]
        logger.handlers[:] = handlers[name]
