"""The verb that lists recipes and shows their fields."""

import argparse
import json
import textwrap

from flows.command.fields import COLUMNS, about, value_lines
from flows.command.output import print_json
from flows.recipes.reading import find_recipe
from flows.recipes.registry import RECIPES
from flows.recipes.schema import Recipe
from storage.config import Config


def recipes(options: argparse.Namespace) -> int:
    """List the recipes, or the fields of one with their meaning: those that differ from the defaults, or all."""
    if options.recipe is None:
        rows = [{"recipe": name, "description": make().description} for name, make in RECIPES.items()]
        print_json(rows) if options.json else _print_list(rows)
        return 0
    recipe = find_recipe(options.recipe)
    if options.json:
        print_json(json.loads(recipe.model_dump_json()))
    else:
        _print_recipe(recipe, full=options.full)
    return 0


def _print_list(rows: list[dict[str, str]]) -> None:
    """Print a block per recipe: descriptions are longer than a column of a table may be."""
    width = max(len(row["recipe"]) for row in rows) + 2
    for row in rows:
        print(
            textwrap.fill(
                row["description"],
                COLUMNS,
                initial_indent=row["recipe"].ljust(width),
                subsequent_indent=" " * width,
            )
        )


def _print_recipe(recipe: Recipe, *, full: bool) -> None:
    for name, value in recipe:
        field = type(recipe).model_fields[name]
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        if not isinstance(value, Config):
            text = f"{name} = {json.dumps(value, ensure_ascii=False)}"
            print(
                textwrap.fill(text, COLUMNS, subsequent_indent="    ") if value is not None else f"\n{name}: off"
            )
            continue
        lines = list(value_lines(value, name, default, full=full))
        if lines or full:
            print("\n" + textwrap.fill(f"{name}: {about(type(value))}", COLUMNS, subsequent_indent="  "))
        for line in lines:
            print(f"  {line}")
    if not full:
        print("\nAll else is as by default: --full shows it, --json prints a recipe file.")
