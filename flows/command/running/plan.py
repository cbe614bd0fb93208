"""The verbs that say what a run would do, and why. They write nothing."""

import argparse

from flows.command.output import print_json
from flows.command.running.asked import asked
from flows.differences import changes_text
from flows.planning import StagePlan, make_plan
from flows.stages import STAGES
from flows.tables import text_table


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


def _plans(options: argparse.Namespace, target: str, force: list[str]) -> list[StagePlan]:
    request = asked(options, target, force)
    return make_plan(request.steps, request.store, request.force, request.recipe.name)


def _why(stage_plan: StagePlan) -> str:
    reason = stage_plan.reason
    if stage_plan.changes:
        reason += f" ({changes_text(stage_plan.changes)})"
    if stage_plan.attempt is not None:
        reason += f"; {stage_plan.attempt}"
    return f"{reason}; CANNOT SUCCEED: {stage_plan.problem}" if stage_plan.problem else reason
