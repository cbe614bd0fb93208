"""The verb that runs a recipe. Results go to standard output, log lines to standard error."""

import argparse
import logging
from typing import Any

from flows.command.store.finding import find_run
from flows.command.store.show import print_run
from flows.planning import make_plan
from flows.recipes.reading import parse_override
from flows.runs import Request, new_run_id, record_cached_run
from flows.service import settings
from storage.artifacts.store import Store

log = logging.getLogger(__name__)


def run(options: argparse.Namespace) -> int:
    """Run a recipe: through Prefect, or not at all when every stage is finished."""
    overrides = dict(parse_override(text) for text in options.overrides)
    request = Request.checked(options.recipe, overrides, options.target, options.force, options.store)
    plans = make_plan(request.steps, request.store, request.force)
    if all(plan.state == "cached" for plan in plans):
        run_id = new_run_id()
        record_cached_run(request, run_id, plans)
        log.info("every stage is finished, nothing to do")
    else:
        run_id = _run_with_prefect(options, overrides, request.store)
    print_run(request.store, find_run(request.store, run_id))
    return 0


def _run_with_prefect(options: argparse.Namespace, overrides: dict[str, Any], store: Store) -> str:
    settings.apply()
    with settings.quick_imports():
        from flows.service.flow_run import run_flow  # noqa: PLC0415 - seconds, and Prefect's settings come before

    return run_flow(
        recipe=options.recipe,
        overrides=overrides,
        target=options.target,
        force=options.force,
        store=store.url,
    )
