"""Reading recipes: by name or from a file, with fields replaced, or an error that says what is wrong."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from flows.recipes.fitting import fit, unpaired
from flows.recipes.merging import merge, override, parse_override
from flows.recipes.places import recipe_place
from flows.recipes.registry import RECIPES
from flows.recipes.schema import Recipe, recipe_type
from flows.recipes.text_values import is_recipe_file, read_file
from flows.recipes.wording import explain, shown
from storage.errors import InputError
from storage.suggestions import did_you_mean

__all__ = ["find_recipe", "is_recipe_file", "parse_override"]

BASED_ON = "based_on"


def find_recipe(name: str, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Return a recipe by its name or from a .yaml/.json file, with dotted fields replaced.

    A file may be one of the records of a store, `runs/<id>.json`, which keep the recipe.

    Raises: InputError for an unknown name, an unreadable file, an unknown field or a value that cannot be;
    CorruptRecordError for a damaged record.
    """
    if name in RECIPES:
        fields = json.loads(RECIPES[name]().model_dump_json())
    elif is_recipe_file(name):
        fields = _read_recipe_file(name)
    else:
        raise InputError(f"a recipe must be one of {_known(name)}")
    override(fields, {field: _fitted(field, value) for field, value in (overrides or {}).items()})
    fitted = fit(fields, recipe_place())
    if broken := unpaired(fitted):
        raise InputError(f"{broken}: must be text that UTF-8 can hold, found half a surrogate pair in it")
    try:
        return recipe_type().model_validate_json(json.dumps(fitted))
    except ValidationError as error:
        raise InputError(explain(error, name)) from None


def _read_recipe_file(name: str) -> dict[str, Any]:
    if "://" in name:
        raise InputError(f"a recipe file must lie on this machine, found {shown(name)}; fetch it first")
    path = Path(name).expanduser()
    fields = read_file(path)
    if not isinstance(fields, dict):
        raise InputError(
            f"{path} must hold the fields of a recipe, found {_kind(fields)}; begin with `based_on: demo`"
        )
    base = fields.pop(BASED_ON, None)
    changes = {"name": path.stem, **fit(fields, recipe_place())}
    if base is None:
        return changes
    if not isinstance(base, str) or base not in RECIPES:
        raise InputError(f"{BASED_ON} in {path} must be one of {_known(base)}")
    merged: dict[str, Any] = json.loads(RECIPES[base]().model_dump_json())
    merge(merged, changes, recipe_place())
    return merged


def _known(found: object) -> str:
    text = ", ".join(RECIPES)
    if isinstance(found, str) and Path(found).is_file():
        return f"{text} or a file that ends in .yaml, .yml or .json, found {found!r}; rename the file"
    return f"{text} or a .yaml or .json file, found {shown(found)}{did_you_mean(found, RECIPES)}"


def _fitted(field: str, value: Any) -> Any:
    return fit(value, recipe_place().follow(field.split(".")))


def _kind(value: Any) -> str:
    return "a list" if isinstance(value, list) else "one word" if isinstance(value, str) else "one value"
