"""Why a recipe cannot be used, in words about fields and values.

Pydantic finds what is wrong and where; what must stand there is told from the schema, so that one wording serves
every field of every package.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import ValidationError

from flows.plugins import problems_of
from flows.recipes.merging import MODEL, WHOLE_MODEL
from flows.recipes.places import Place, Schema, recipe_place
from flows.recipes.registry import RECIPES
from storage.suggestions import did_you_mean

Problem = Mapping[str, Any]

OWN_WORDS = ("Value error, ", "Assertion failed, ")
"""What pydantic puts before the message of a check of ours."""

YES = frozenset({"yes", "on", "y", "1", "true"})
NO = frozenset({"no", "off", "n", "0", "false"})

NUMBER = re.compile(r"[-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?")
PASSWORD = re.compile(r"(?<=//)[^/@\s]*@")
LONGEST = 200
"""Characters of a value that are shown."""


def explain(error: ValidationError, recipe: str) -> str:
    """Return one line that names every field that is wrong, what must stand there and what was found."""
    lines: list[str] = []
    for problem in error.errors(include_url=False):
        lines += [line for line in _lines(problem) if line not in lines]
    return f"the recipe {recipe!r} cannot be used: " + "; ".join(lines)


@dataclass(frozen=True)
class _Where:
    """Where a problem is."""

    field: str
    """Its dotted name."""
    place: Place | None
    """None if the recipe has no such place."""
    above: Place | None
    """The place that it is in."""
    member: tuple[str, str] = ("", "")
    """Tag of the innermost member of a union that it is in: `("kind", "files")`."""


def _lines(problem: Problem) -> list[str]:
    where, kind, found = _located(problem["loc"]), problem["type"], problem["input"]
    before, place = f"{where.field}: " if where.field else "", where.place
    if kind in ("value_error", "assertion_error"):
        message = problem["msg"]
        for words in OWN_WORDS:
            message = message.removeprefix(words)
        return [before + PASSWORD.sub("***@", message)]
    if kind == "json_invalid":  # the text was made by us, so that only its depth can be wrong
        return ["a recipe must not be nested this deeply"]
    if kind == "extra_forbidden":
        return _no_field_lines(where)
    if kind == "missing":
        return [f"{before}must be given, found nothing; it is {described(place)}"]
    if kind in ("union_tag_invalid", "union_tag_not_found") and place is not None and place.tag_field:
        return _tag_lines(where.field, place, found)
    if kind == "finite_number":
        return [f"{before}must be a finite number, found {shown(found)}"]
    return [f"{before}must be {described(place)}, found {shown(found)}{_advice(place, found)}"]


def _no_field_lines(where: _Where) -> list[str]:
    above, _, last = where.field.rpartition(".")
    known = [*(where.above.fields if where.above else ()), *(WHOLE_MODEL if above == MODEL else ())]
    example = _example_of(*where.member) if where.member[1] else "demo"
    meant = did_you_mean(last, known) or f"; see `pile recipes {example} --full`"
    of = f" with {where.member[0]} {where.member[1]}" if where.member[1] else ""
    line = f"{where.field}: the recipe has no such field{of}{meant}"
    return [line, *(() if above else problems_of(last.replace("_", "-")))]


def _tag_lines(field: str, place: Place, found: Any) -> list[str]:
    dotted = f"{field}.{place.tag_field}"
    if isinstance(found, Mapping) and place.tag_field in found:
        tag = found[place.tag_field]
        line = (
            f"{dotted}: must be one of {', '.join(place.tags)}, found {shown(tag)}{did_you_mean(tag, place.tags)}"
        )
        return [line, *(problems_of(tag) if isinstance(tag, str) else ())]
    return [f"{dotted}: must be given, found nothing; it is one of {', '.join(place.tags)}"]


def _located(steps: tuple[int | str, ...]) -> _Where:
    where = _Where("", recipe_place(), None)
    for step in map(str, steps):
        place = where.place
        if place is not None and (member := place.narrowed(step)) is not None:
            where = _Where(where.field, member, where.above, (place.tag_field or "", step))
        elif step != "[key]":
            field = f"{where.field}.{step}" if where.field else step
            where = _Where(field, place.step(step) if place else None, place, where.member)
    return where


@cache
def _example_of(tag_field: str, tag: str) -> str:
    """Return a recipe that has this member of a union, if one does."""
    text = f'"{tag_field}":{json.dumps(tag)}'
    return next((name for name, make in RECIPES.items() if text in make().model_dump_json()), "demo")


def described(place: Place | None) -> str:
    """Return what may stand in a place, as `a whole number of at least 1`."""
    if place is None or not any(each.schema for each in place.alternatives):
        return "another value"
    if place.tag_field:
        return f"a section with {place.tag_field} and its fields ({place.tag_field}: {', '.join(place.tags)})"
    texts = dict.fromkeys(_described(each.schema, place) for each in place.alternatives)
    off = "null or off to switch the stage off" if place.is_section else "null"
    return " or ".join([*texts, *([off] if place.may_be_null else [])])


def _described(schema: Schema, place: Place) -> str:
    if "enum" in schema or "const" in schema:
        choices = [str(choice) for choice in schema.get("enum", [schema.get("const")])]
        return f"one of {', '.join(choices)}" if len(choices) > 1 else repr(choices[0])
    kind = schema.get("type")
    if kind == "object":
        return _described_object(schema, place)
    if kind == "array":
        inner = place.step("0")
        few = schema.get("minItems", 0)
        if "prefixItems" in schema:
            return f"a list of {few} values"
        return f"a list{f' of at least {few}' if few else ''}, each entry {described(inner)}"
    if kind == "string":
        return _described_text(schema)
    if kind in ("integer", "number"):
        return ("a whole number" if kind == "integer" else "a number") + _bounds(schema)
    return {"boolean": "true or false", "null": "null"}.get(str(kind), "another value")


def _described_object(schema: Schema, place: Place) -> str:
    if isinstance(schema.get("additionalProperties"), Mapping):
        return f"a map of names, each with {described(place.step(''))}"
    names = list(schema.get("properties", ()))
    return (
        f"a section with its fields ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})" if names else "{}"
    )


def _described_text(schema: Schema) -> str:
    if pattern := schema.get("pattern"):
        return f"text that matches {pattern}"
    longest = f" of at most {schema['maxLength']} characters" if "maxLength" in schema else ""
    return f"text{longest}" + (" that is not empty" if schema.get("minLength") == 1 else "")


def _bounds(schema: Schema) -> str:
    words = {
        "minimum": "of at least",
        "exclusiveMinimum": "above",
        "maximum": "of at most",
        "exclusiveMaximum": "below",
        "multipleOf": "that is a multiple of",
    }
    found = [f"{word} {_number(schema[name])}" for name, word in words.items() if name in schema]
    return (" " + " and ".join(found)) if found else ""


def _number(value: float) -> str:
    return f"{value:.17g}" if isinstance(value, float) else str(value)


def shown(value: Any) -> str:
    """Return what was found, for a message: no section as a whole, which may hold passwords, and no password."""
    if isinstance(value, Mapping):
        return f"a map with {', '.join(map(str, list(value)[:8]))}" if value else "an empty map"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}" if value else "an empty list"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if not isinstance(value, str):
        return f"{value!r:.{LONGEST}}"
    text = PASSWORD.sub("***@", value)
    return repr(text if len(text) <= LONGEST else text[:LONGEST] + "...")


def _advice(place: Place | None, found: Any) -> str:
    if place is None:
        return ""
    word = str(found).lower() if isinstance(found, str | bool | int) else ""
    if place.is_truth_value and word in YES | NO:
        return f"; write {'true' if word in YES else 'false'}"
    if place.is_section and place.may_be_null and word in YES:
        return "; leave the line out to keep the stage as it is, or write {} for its defaults"
    if place.is_text and isinstance(found, int | float):
        return "; put it into quotes"
    numeric = any(each.schema.get("type") in ("integer", "number") for each in place.alternatives)
    if numeric and isinstance(found, str):
        plain = found.replace("_", "").replace(",", "")
        if plain != found and plain.isdigit():
            return f"; write {plain}"
        return "; write it without quotes" if NUMBER.fullmatch(found) else ""
    return ""
