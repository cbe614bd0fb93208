"""The verbs that say what a run would do, and why. They write nothing."""

import argparse

from flows.command.output import print_json
from flows.planning import StagePlan, make_plan
from flows.recipes.reading import parse_override
from flows.runs import Request
from flows.stages import STAGES
from flows.tables import text_table


def plan(options: argparse.Namespace) -> int:
    """Print what a run would do."""
    request, plans = _plans(options, options.target, options.force)
    never = _never_run(request)
    if options.json:
        print_json({"never_run": never, "stages": [stage_plan.to_json() for stage_plan in plans]})
        return 0
    if never:
        print(f"the recipe {request.recipe.name!r} was never run in {request.store.url}")
    rows = [{"stage": p.stage.name, "state": p.state, "why": _why(p, compare=not never)} for p in plans]
    print(text_table(rows))
    return 0


def why(options: argparse.Namespace) -> int:
    """Explain the state of one stage, following waiting stages up to the one that would run."""
    STAGES.get(options.stage)  # a target may also be `all`
    _, planned = _plans(options, options.stage, [])
    plans = {p.stage.name: p for p in planned}
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


def _plans(options: argparse.Namespace, target: str, force: list[str]) -> tuple[Request, list[StagePlan]]:
    overrides = dict(parse_override(text) for text in options.overrides)
    request = Request.checked(options.recipe, overrides, target, force, options.store)
    return request, make_plan(request.steps, request.store, request.force)


def _never_run(request: Request) -> bool:
    """Tell whether no run of this recipe is known: what is there comes from others and differs in everything."""
    return all(run.recipe_name != request.recipe.name for run in request.store.runs())


def _why(stage_plan: StagePlan, *, compare: bool = True) -> str:
    """Return the reason, with the fields that differ from the nearest finished artifact if they are to compare."""
    if not compare and stage_plan.changes:
        return "not built yet" if stage_plan.state == "run" else stage_plan.reason
    changes = "; ".join(f"{c.field}: {c.old!r} -> {c.new!r}" for c in stage_plan.changes[:8])
    more = f"; and {len(stage_plan.changes) - 8} more" if len(stage_plan.changes) > 8 else ""
    return f"{stage_plan.reason} ({changes}{more})" if changes else stage_plan.reason
