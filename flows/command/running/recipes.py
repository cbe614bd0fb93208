"""The verb that lists recipes and shows their fields."""

import argparse
import json

from flows.command.fields import about, value_lines
from flows.command.output import print_json
from flows.recipes.reading import find_recipe
from flows.recipes.registry import RECIPES
from flows.tables import text_table
from storage.config import Config


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
