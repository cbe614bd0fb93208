"""The verb that prints what makes a shell complete verbs, options, recipes and stages."""

import argparse

import shtab

from flows.recipes.registry import RECIPES
from flows.stages import STAGES

RECIPE, STAGE = "_pile_recipe", "_pile_stage"
"""Shell functions that complete names."""


def completion(options: argparse.Namespace) -> int:
    """Print the script of a shell; it holds the names that there are now, those of other packages too."""
    parser = options.parser
    for action in _actions(parser):
        if action.dest in ("recipe", "model", "what"):
            _complete(action, RECIPE)
        elif action.dest in ("stage", "target", "force"):
            _complete(action, STAGE)
        elif action.dest in ("files", "store"):
            action.complete = shtab.FILE  # type: ignore[attr-defined] # where shtab looks for it
    print(shtab.complete(parser, options.shell, preamble=_preamble()[options.shell]))
    return 0


def _complete(action: argparse.Action, function: str) -> None:
    action.complete = {"bash": function, "zsh": function}  # type: ignore[attr-defined] # where shtab looks for it


def _preamble() -> dict[str, str]:
    recipes, stages = " ".join(RECIPES), " ".join(STAGES.names())
    bash = f"""\
{RECIPE}() {{ compgen -W "{recipes}" -- "$1"; compgen -f -- "$1"; }}
{STAGE}() {{ compgen -W "all {stages}" -- "$1"; }}
"""
    zsh = f"""\
{RECIPE}() {{ compadd {recipes}; _files; }}
{STAGE}() {{ compadd all {stages}; }}
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
