"""Reading recipes: by name or from a file, with fields replaced, or an error that says what is wrong."""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from flows.plugins import problems_of
from flows.recipes.registry import RECIPES
from flows.recipes.schema import Recipe, recipe_type
from storage.errors import InputError

SHORT_FORMS = {"train.model": "preset", "execution.engine": "name"}
"""Fields that may be given as one word, and which of their fields that word is."""

UNIONS = frozenset({"train.model", "execution.engine", "download.source"})
"""Fields that one of several members reads, whose name pydantic tells behind them in an error."""

SAYS_WHAT_IT_FOUND = frozenset({"value_error", "missing", "union_tag_invalid", "union_tag_not_found"})
"""Problems whose message does it already. Those of a union would show a whole section, passwords and all."""

KIND = "kind"
"""The field that tells sources apart."""


def find_recipe(name: str, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Return a recipe by its name or from a .yaml/.json file, with dotted fields replaced.

    Raises: InputError for an unknown name, an unreadable file, an unknown field or a value that cannot be.
    """
    if name in RECIPES:
        fields = json.loads(RECIPES[name]().model_dump_json())
    elif name.endswith((".yaml", ".yml", ".json")):
        fields = _read_recipe_file(Path(name))
    else:
        raise InputError(f"a recipe must be one of {', '.join(RECIPES)} or a .yaml or .json file, found {name!r}")
    for field, value in _another_source_first(fields, _whole_model_first(overrides or {})).items():
        _replace(fields, field, value)
    try:
        sections = {field: None if value is False else value for field, value in fields.items()}  # `off` in YAML
        return recipe_type().model_validate_json(json.dumps(sections))
    except ValidationError as error:
        raise InputError(_explain(error, name)) from None
    except (TypeError, ValueError, RecursionError) as error:  # YAML knows dates, sets and cycles
        raise InputError(f"the recipe {name!r} must consist of JSON values, found: {error}") from None


def parse_override(text: str) -> tuple[str, Any]:
    """Split `stage.field=value`; the value is read as YAML, so `3`, `1e-3`, `true` and `[a, b]` work.

    Raises: InputError if there is no `=` or the value is not YAML.
    """
    field, equals, value = text.partition("=")
    if not equals or not field:
        raise InputError(f"--set must be given as stage.field=value, found {text!r}")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError:
        raise InputError(f"the value of --set {field} must be YAML or JSON, found {value!r}") from None
    if isinstance(parsed, str):  # YAML 1.1 reads 1e-3 as text
        with contextlib.suppress(ValueError):
            parsed = float(parsed)
    return field.strip(), parsed


def _read_recipe_file(path: Path) -> dict[str, Any]:
    try:
        fields = yaml.safe_load(path.read_text())  # JSON is YAML
    except OSError as error:
        raise InputError(f"the recipe file must be readable, found {error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} must be YAML or JSON, found: {error}") from None
    if not isinstance(fields, dict):
        raise InputError(f"{path} must hold the fields of a recipe, found {type(fields).__name__}")
    base = fields.pop("based_on", None)
    if base is None:
        return {"name": path.stem, **fields}
    if not isinstance(base, str) or base not in RECIPES:
        raise InputError(f"based_on in {path} must be one of {', '.join(RECIPES)}, found {base!r}")
    merged: dict[str, Any] = json.loads(RECIPES[base]().model_dump_json())
    _merge(merged, {"name": path.stem, **fields})
    return merged


def _merge(fields: dict[str, Any], changes: dict[str, Any]) -> None:
    for name, value in changes.items():
        old = fields.get(name)
        if isinstance(value, dict) and isinstance(old, dict) and not _is_another(old, value):
            _merge(old, value)
        else:
            fields[name] = value


def _is_another(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Tell whether a model or a source is not the base's, whose fields then mean nothing to it."""
    return bool(new.keys() & {"family", "preset"}) or (KIND in old and new.get(KIND, old[KIND]) != old[KIND])


def _another_source_first(fields: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Let another kind of source replace the source as a whole: fields of another kind mean nothing to it."""
    source = fields.get("download", {}).get("source", {})
    kind = overrides.get(f"download.source.{KIND}")
    if kind is None or kind == source.get(KIND):
        return dict(overrides)
    return {"download.source": {KIND: kind}, **overrides}


def _whole_model_first(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Let a preset or a family replace the model as a whole: fields of another family mean nothing to it."""
    parts = {f"train.model.{name}": name for name in ("preset", "family")}
    whole = {parts[field]: value for field, value in overrides.items() if field in parts}
    if not whole or "train.model" in overrides:
        return dict(overrides)
    others = {field: value for field, value in overrides.items() if field not in parts}
    return {"train.model": whole, **others}


def _replace(fields: dict[str, Any], dotted: str, value: Any) -> None:
    *path, last = dotted.split(".")
    if path:  # `train-tokenizer` is the stage, `train_tokenizer` its field
        path[0] = path[0].replace("-", "_")
    for depth, name in enumerate(path):
        short = SHORT_FORMS.get(".".join(path[: depth + 1]))
        if short and isinstance(fields.get(name), str):
            fields[name] = {short: fields[name]}  # --set train.model=world-1m --set train.model.top_k=2
        if depth == 0 and fields.get(name, {}) in (None, False):  # a stage that is off is switched on
            fields[name] = {}
        if not isinstance(fields.get(name), dict):
            raise InputError(_unknown(".".join(path[: depth + 1]), fields))
        fields = fields[name]
    fields[last] = value


def _unknown(field: str, known: Mapping[str, Any]) -> str:
    return f"the recipe has no field {field!r}; there are {', '.join(sorted(known))}"


def _example_of(family: str) -> str:
    """Return a recipe that shows the fields of a model family, if one does."""
    models = ((name, make().model_dump().get("train") or {}) for name, make in RECIPES.items())
    return next((name for name, train in models if train.get("model", {}).get("family") == family), "demo")


def _explain(error: ValidationError, recipe: str) -> str:
    lines = []
    for problem in error.errors(include_url=False):
        steps = [str(step) for step in problem["loc"]]
        example = "demo"
        if ".".join(steps[:2]) in UNIONS and len(steps) > 2:
            example = _example_of(steps.pop(2))
        field = f"{'.'.join(steps)}: " if steps else ""
        if problem["type"] == "extra_forbidden":
            lines.append(f"{field}the recipe has no such field; see `pile recipes {example}`")
            lines += problems_of(steps[0].replace("_", "-")) if len(steps) == 1 else ()
        else:
            message = problem["msg"].replace("Value error, ", "")
            found = "" if problem["type"] in SAYS_WHAT_IT_FOUND else f", found {problem['input']!r:.200}"
            lines.append(f"{field}{message}{found}")
            lines += problems_of(str(problem.get("ctx", {}).get("tag", "")))
    return f"the recipe {recipe!r} cannot be used: " + "; ".join(lines)
