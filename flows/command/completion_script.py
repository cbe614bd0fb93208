"""The script by which a shell completes verbs, options, recipes, stages and the runs of a store."""

import argparse

import shtab

from flows.recipes.registry import RECIPES
from flows.stages import STAGES

RECIPE, STAGE, RUN = "_pile_recipe", "_pile_stage", "_pile_run"
"""Shell functions that complete names."""


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """Return the script; it holds the names that there are now, those of other packages too."""
    for action in _actions(parser):
        if action.dest in ("recipe", "model", "what"):
            _complete(action, RECIPE)
        elif action.dest in ("stage", "target", "force"):
            _complete(action, STAGE)
        elif action.dest == "run":
            _complete(action, RUN)
        elif action.dest in ("files", "store"):
            action.complete = shtab.FILE  # type: ignore[attr-defined] # where shtab looks for it
    return str(shtab.complete(parser, shell, preamble=_preamble()[shell]))


def _complete(action: argparse.Action, function: str) -> None:
    action.complete = {"bash": function, "zsh": function}  # type: ignore[attr-defined] # where shtab looks for it


def _preamble() -> dict[str, str]:
    recipes, stages = " ".join(RECIPES), " ".join(STAGES.names())
    # COMP_LINE and not COMP_WORDS: bash breaks words at the colon of s3://.
    bash = f"""\
{RECIPE}() {{ compgen -W "{recipes}" -- "$1"; compgen -f -- "$1"; }}
{STAGE}() {{ compgen -W "all {stages}" -- "$1"; }}
{RUN}() {{
  local store=()
  [[ "$COMP_LINE " =~ " --store "+([^[:space:]]+)" " ]] && store=(--store "${{BASH_REMATCH[1]/#[~]/$HOME}}")
  compgen -W "{recipes} $("${{COMP_WORDS[0]/#[~]/$HOME}}" completion runs "${{store[@]}}" 2>/dev/null)" -- "$1"
}}
"""
    zsh = f"""\
{RECIPE}() {{ compadd {recipes}; _files; }}
{STAGE}() {{ compadd all {stages}; }}
{RUN}() {{
  local -a store match mbegin mend
  [[ "$words " =~ ' --store[= ]+([^ ]+) ' ]] && store=(--store "${{match[1]/#[~]/$HOME}}")
  compadd {recipes} $("${{words[1]/#[~]/$HOME}}" completion runs $store 2>/dev/null)
}}
"""
    return {"bash": bash, "zsh": zsh}


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    found: list[argparse.Action] = []
    for action in parser._actions:
        found.append(action)
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                found += _actions(below)
    return found
