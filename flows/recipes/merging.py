"""Changing some fields of a recipe: by a file that is based on it, or by options.

Sections merge field by field and maps key by key. `null` takes an entry out of a map (in one whose values may be
null it is such a value), `{}` empties a map, and a list, a model by its preset or family, or another member of a
union (kind of source, engine) replaces what was there.
"""

import copy
from collections.abc import Mapping
from typing import Any

from flows.plugins import problems_of
from flows.recipes.fitting import fit
from flows.recipes.places import Place, field_paths, recipe_place
from flows.recipes.text_values import read_json
from flows.recipes.yaml_core import read_yaml
from storage.errors import InputError
from storage.suggestions import did_you_mean

SHORT_FORMS = {"train.model": "preset", "execution.engine": "name"}
"""Fields that may be given as one word, and which of their fields that word is."""

MODEL = "train.model"
WHOLE_MODEL = ("preset", "family")
"""Fields that say which model it is: those of another one mean nothing to it."""


def merge(fields: dict[str, Any], changes: Mapping[str, Any], place: Place | None, path: str = "") -> None:
    """Change fields in place. Raises: InputError if there is no entry to be taken out of a map."""
    place = place.given(fields) if place else None
    for name, value in changes.items():
        inner = place.step(name) if place else None
        dotted, old = f"{path}.{name}" if path else name, fields.get(name)
        if value is None and place is not None and place.is_map and not (inner and inner.may_be_null):
            if name not in fields:
                raise InputError(
                    f"{dotted}: null must take out an entry that is there, found none of this name"
                    f"{did_you_mean(name, fields)}"
                )
            del fields[name]
        elif not isinstance(value, dict) or not isinstance(old, dict) or _is_another(old, value, inner, dotted):
            fields[name] = value
        elif not value and inner is not None and inner.is_map:
            fields[name] = {}
        else:
            merge(old, value, inner, dotted)


def override(fields: dict[str, Any], overrides: Mapping[str, Any]) -> None:
    """Change the fields of a recipe in place by dotted names. Raises: InputError for one that there is not."""
    for field, value in _another_source_first(fields, _whole_model_first(overrides)).items():
        _replace(fields, field, value)


def parse_override(text: str) -> tuple[str, Any]:
    """Split `stage.field=value`; text fields take the value as it stands, others as YAML: `3`, `1e-3`, `[a, b]`.

    Raises: InputError if there is no `=` or the value is not YAML.
    """
    field, equals, value = text.partition("=")
    field, value = field.strip(), value.strip()
    if not equals or not field:
        raise InputError(f"--set must be given as stage.field=value, found {text!r}")
    place = recipe_place().follow(_steps(field))
    return field, fit(_parsed(field, value, place), place)


def _parsed(field: str, value: str, place: Place | None) -> Any:
    inner = place.step("0") if place and place.is_list and value and not value.startswith("[") else place
    as_it_stands = inner is not None and inner.is_text and not value.startswith(("'", '"'))
    if as_it_stands and value not in ("null", "~") and (value or not inner.may_be_null):  # type: ignore[union-attr]
        return value
    try:
        return read_yaml(value, f"the value of --set {field}")
    except InputError:
        try:
            return read_json(value, f"the value of --set {field}")  # JSON with tabs, for one
        except InputError:
            pass
        raise


def _is_another(old: Mapping[str, Any], new: Mapping[str, Any], place: Place | None, dotted: str) -> bool:
    """Tell whether a model, a source or an engine is not the one before, whose fields then mean nothing to it."""
    if dotted == MODEL:
        return bool(new.keys() & set(WHOLE_MODEL))
    tag = place.tag_field if place else None
    return tag is not None and tag in new and new[tag] != old.get(tag)


def _another_source_first(fields: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Let another kind of source replace the source as a whole: fields of another kind mean nothing to it."""
    source = (fields.get("download") or {}).get("source")
    kind = overrides.get("download.source.kind")
    if kind is None or not isinstance(source, dict) or kind == source.get("kind"):
        return dict(overrides)
    return {"download.source": {"kind": kind}, **overrides}


def _whole_model_first(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Let a preset or a family replace the model as a whole: fields of another family mean nothing to it."""
    parts = {f"{MODEL}.{name}": name for name in WHOLE_MODEL}
    whole = {parts[field]: value for field, value in overrides.items() if field in parts}
    if not whole or MODEL in overrides:
        return dict(overrides)
    others = {field: value for field, value in overrides.items() if field not in parts}
    return {MODEL: whole, **others}


def _steps(dotted: str) -> list[str]:
    first, *others = dotted.split(".")
    return [first.replace("-", "_") if others else first, *others]  # `train-tokenizer` is the stage


def _replace(fields: dict[str, Any], dotted: str, value: Any) -> None:
    place: Place | None = recipe_place()
    path, steps = "", _steps(dotted)
    while len(steps) > 1 and not (place and _holds_values(place)):
        name = steps.pop(0)
        path = f"{path}.{name}" if path else name
        place = place.given(fields).step(name) if place else None
        if place is None or place.is_list or not place.alternatives:
            raise InputError(_unknown(path, dotted))
        short = SHORT_FORMS.get(path)
        if short and isinstance(fields.get(name), str):
            fields[name] = {short: fields[name]}  # --set train.model=world-1m --set train.model.top_k=2
        if name not in fields or fields[name] in (None, False):  # a stage that is off is switched on
            fields[name] = copy.deepcopy(place.default) if isinstance(place.default, dict) else {}
        if not isinstance(fields[name], dict):
            raise InputError(_unknown(path, dotted))
        fields = fields[name]
    last = ".".join(steps)
    if not path and place is not None and place.step(last) is None:
        raise InputError(_unknown(last, dotted))
    merge(fields, {last: value}, place, path)


def _holds_values(place: Place) -> bool:
    """Tell whether it is a map of values: what is left of a dotted name is then a name, dots and all."""
    inner = place.step("") if place.is_map else None
    return inner is not None and not inner.is_section and not inner.is_map


def _unknown(field: str, dotted: str) -> str:
    below = recipe_place().follow(field.split("."))
    if below is not None:
        return f"{dotted!r} must be a field of the recipe, but {field} has no fields below it; set it as a whole"
    line = f"the recipe has no field {field!r}{_meant_field(dotted) or f'; there are {_known_beside(field)}'}"
    return "; ".join([line, *(() if "." in field else problems_of(field.replace("_", "-")))])


def _meant_field(dotted: str) -> str:
    """Return which field may have been meant, as `; did you mean 'train.max_steps'?`, or ''."""
    steps = _steps(dotted)
    known = field_paths()
    same = [path for path in known if path.rpartition(".")[2] == steps[-1] and path.count(".") <= 2]
    if len(steps) == 1 and len(same) == 1:
        return f"; did you mean {same[0]!r}?"
    return did_you_mean(".".join(steps), known)


def _known_beside(field: str) -> str:
    """Return the names that may stand where a field stands that there is not."""
    above = recipe_place().follow(field.split(".")[:-1])
    return ", ".join(sorted(above.fields)) if above else ""
