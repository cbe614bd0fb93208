"""The verb that serves: a Prefect server with its UI, workers and the deployments."""

import argparse
import functools

from flows.runs.request import open_store
from flows.service.up import LocalServices


def up(options: argparse.Namespace) -> int:
    """Serve until Ctrl-C."""
    say = functools.partial(print, flush=True)
    LocalServices(options.host, options.port, open_store(options.store).url, say).run()
    return 0
