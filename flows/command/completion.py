"""The verb that prints what makes a shell complete verbs, options, names, and the runs of a store."""

import argparse
import contextlib
from pathlib import PurePosixPath

from flows.runs.store_place import store_url
from storage.artifacts.layout import NAME, RUNS
from storage.backends.registry import open_backend
from storage.errors import Fault, InputError
from storage.registry import load

RUN_IDS = "runs"
"""What a shell's script asks for when a run is to be completed: which there are changes all the time."""


def completion(options: argparse.Namespace) -> int:
    """Print the script of a shell, or for that script the run ids of a store."""
    if options.shell == RUN_IDS:
        return _print_run_ids(options.store)
    print(load(options.script)(options.parser, options.shell))
    return 0


def _print_run_ids(store: str | None) -> int:
    """Print the names of the run records without a look into any; nothing if there are none to be seen."""
    with contextlib.suppress(OSError, Fault, InputError):
        for path, _, _ in open_backend(store_url(store)).list(RUNS):
            # Shells expand what they complete: nothing but a run's name may come from a store that others write.
            if NAME.fullmatch(name := PurePosixPath(path).stem):
                print(name)
    return 0
