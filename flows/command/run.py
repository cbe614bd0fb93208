"""What the verbs of `pile` that make something do. Results go to standard output, log lines to standard error."""

import argparse
import json
import logging
from typing import Any

from flows.command.fields import about, value_lines
from flows.command.output import print_json
from flows.command.store import find_run, print_run
from flows.planning import StagePlan, make_plan
from flows.recipes.reading import find_recipe, parse_override
from flows.recipes.registry import RECIPES
from flows.runs import Request, new_run_id, record_cached_run
from flows.service import settings
from flows.stages import STAGES
from flows.tables import text_table
from storage.artifacts.store import Store
from storage.config import Config

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


def plan(options: argparse.Namespace) -> int:
    """Print what a run would do."""
    plans = _plans(options, options.target, options.force)
    if options.json:
        print_json({"stages": [stage_plan.to_json() for stage_plan in plans]})
    else:
        print(text_table([{"stage": p.stage.name, "state": p.state, "why": _why(p)} for p in plans]))
    return 0


def why(options: argparse.Namespace) -> int:
    """Explain the state of one stage, following waiting stages up to the one that would run."""
    STAGES.get(options.stage)  # a target may also be `all`
    plans = {p.stage.name: p for p in _plans(options, options.stage, [])}
    wanted = plans[options.stage]
    causes = [p for p in plans.values() if p.state == "run"] if wanted.state == "waiting" else []
    if options.json:
        causes_json = [{**p.to_json(), "reason": p.reason} for p in causes]
        print_json({**wanted.to_json(), "reason": wanted.reason, "causes": causes_json})
        return 0
    print(f"{options.stage}: {wanted.state}: {_why(wanted)}")
    for cause in causes:
        print(f"  because {cause.stage.name} would run: {_why(cause)}")
    return 0


def recipes(options: argparse.Namespace) -> int:
    """List the recipes, or all fields of one with their meaning."""
    if options.recipe is None:
        rows = [{"recipe": name, "description": make().description} for name, make in RECIPES.items()]
        print_json(rows) if options.json else print(text_table(rows))
        return 0
    recipe = find_recipe(options.recipe)
    if options.json:
        print_json(json.loads(recipe.model_dump_json()))
        return 0
    for name, value in recipe:
        if not isinstance(value, Config):
            print(f"{name} = {value!r}" if value is not None else f"\n{name}: off")
            continue
        print(f"\n{name}: {about(type(value))}")
        for line in value_lines(value, name):
            print(f"  {line}")
    return 0


def _run_with_prefect(options: argparse.Namespace, overrides: dict[str, Any], store: Store) -> str:
    settings.apply()
    from flows.service.flow_run import run_flow  # noqa: PLC0415 - two seconds, and Prefect's settings come before

    return run_flow(
        recipe=options.recipe,
        overrides=overrides,
        target=options.target,
        force=options.force,
        store=store.url,
    )


def _plans(options: argparse.Namespace, target: str, force: list[str]) -> list[StagePlan]:
    overrides = dict(parse_override(text) for text in options.overrides)
    request = Request.checked(options.recipe, overrides, target, force, options.store)
    return make_plan(request.steps, request.store, request.force)


def _why(stage_plan: StagePlan) -> str:
    changes = "; ".join(f"{c.field}: {c.old!r} -> {c.new!r}" for c in stage_plan.changes[:8])
    more = f"; and {len(stage_plan.changes) - 8} more" if len(stage_plan.changes) > 8 else ""
    return f"{stage_plan.reason} ({changes}{more})" if changes else stage_plan.reason
