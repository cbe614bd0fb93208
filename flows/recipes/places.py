"""The places of a recipe: what may stand in each, asked of the JSON schema of its sections.

The schema knows every section and member, those of other packages too, so that no list of fields is kept here.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode
from pydantic_core import CoreSchema

from flows.recipes.schema import recipe_type

Schema = Mapping[str, Any]


@dataclass(frozen=True)
class Alternative:
    """One thing that may stand in a place."""

    schema: Schema
    tag: tuple[str, str] | None = None
    """Field and value that tell it from the others: `("kind", "mirror")`."""


@dataclass(frozen=True)
class Place:
    """A place of a recipe."""

    alternatives: tuple[Alternative, ...]
    """What may stand there, null aside."""
    may_be_null: bool
    default: Any = None
    definitions: Schema = None  # type: ignore[assignment]  # every maker gives them

    def step(self, name: str) -> "Place | None":
        """Return the place below under a name, None if there is none."""
        found = [inner for each in self.alternatives if (inner := _below(each.schema, name)) is not None]
        return _place(found, self.definitions) if found else None

    def follow(self, names: Iterable[str]) -> "Place | None":
        """Return the place below a path of names."""
        place: Place | None = self
        for name in names:
            place = place.step(name) if place else None
        return place

    def narrowed(self, tag: str) -> "Place | None":
        """Return this place for one member of a union, None if it is no union with such a member."""
        found = tuple(Alternative(a.schema) for a in self.alternatives if a.tag and a.tag[1] == tag)
        return Place(found, self.may_be_null, self.default, self.definitions) if found else None

    def given(self, value: Any) -> "Place":
        """Return this place for the member that a value names, all of them if it names none."""
        if isinstance(value, Mapping) and self.tag_field in value:
            return self.narrowed(str(value[self.tag_field])) or self
        return self

    @property
    def tag_field(self) -> str | None:
        """The field that tells the members of a union apart."""
        return next((each.tag[0] for each in self.alternatives if each.tag), None)

    @property
    def tags(self) -> tuple[str, ...]:
        """The members of a union."""
        return tuple(each.tag[1] for each in self.alternatives if each.tag)

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """Names that may stand below, each once; none for a map, whose names are free."""
        return tuple(
            dict.fromkeys(name for each in self.alternatives for name in each.schema.get("properties", ()))
        )

    @property
    def is_map(self) -> bool:
        """Whether any names may stand below, as those of subsets."""
        return self._all(lambda schema: isinstance(schema.get("additionalProperties"), Mapping))

    @property
    def is_section(self) -> bool:
        """Whether certain fields may stand below."""
        return self._all(lambda schema: schema.get("type") == "object" and not schema.get("additionalProperties"))

    @property
    def is_list(self) -> bool:
        """Whether it wants a list."""
        return self._all(lambda schema: schema.get("type") == "array")

    @property
    def is_text(self) -> bool:
        """Whether it wants text."""
        return self._all(lambda schema: schema.get("type") == "string")

    @property
    def is_whole_number(self) -> bool:
        """Whether it wants a whole number."""
        return self._all(lambda schema: schema.get("type") == "integer")

    @property
    def is_truth_value(self) -> bool:
        """Whether it wants true or false."""
        return self._all(lambda schema: schema.get("type") == "boolean")

    def _all(self, holds: Any) -> bool:
        return bool(self.alternatives) and all(holds(each.schema) for each in self.alternatives)


@cache
def recipe_place() -> Place:
    """Return the place of a recipe as a whole."""
    schema = recipe_type().model_json_schema(schema_generator=_Lenient)
    return Place((Alternative(schema),), may_be_null=False, definitions=schema.get("$defs", {}))


@cache
def field_paths() -> tuple[str, ...]:
    """Return the dotted names of all fields, without those below free names and in lists."""
    return tuple(_paths(recipe_place(), ""))


class _Lenient(GenerateJsonSchema):
    """A package may have fields that JSON schema cannot describe; anything may then stand there."""

    def handle_invalid_for_json_schema(self, schema: CoreSchema, error_info: str) -> dict[str, Any]:
        return {}

    def generate(self, schema: CoreSchema, mode: JsonSchemaMode = "validation") -> dict[str, Any]:
        self.ignored_warning_kinds = {"non-serializable-default", "skipped-choice"}
        return super().generate(schema, mode)


def _paths(place: Place, prefix: str) -> Iterator[str]:
    for name in place.fields:
        yield prefix + name
        below = place.step(name)
        if below is not None and not below.is_map:
            yield from _paths(below, f"{prefix}{name}.")


def _below(schema: Schema, name: str) -> Schema | None:
    below: Schema | None = schema.get("properties", {}).get(name)
    if below is not None:
        return below
    if isinstance(free := schema.get("additionalProperties"), Mapping):
        return free
    if schema.get("type") == "array" and name.isdigit():
        first: list[Schema] = schema.get("prefixItems", [])
        rest: Schema = schema.get("items", {})
        return first[int(name)] if int(name) < len(first) else rest
    return None


def _place(schemas: Iterable[Schema], definitions: Schema) -> Place:
    found: dict[int, Alternative] = {}
    null, default = False, None
    for schema in schemas:
        default = schema.get("default", default)
        for each in _expanded(schema, definitions):
            if each.schema.get("type") == "null":
                null = True
            else:
                found[id(each.schema)] = each
    return Place(tuple(found.values()), null, default, definitions)


def _expanded(schema: Schema, definitions: Schema) -> Iterator[Alternative]:
    if reference := schema.get("$ref"):
        yield from _expanded(definitions[reference.rpartition("/")[2]], definitions)
    elif tagged := schema.get("discriminator"):
        for tag, reference in tagged["mapping"].items():
            yield Alternative(definitions[reference.rpartition("/")[2]], (tagged["propertyName"], tag))
    elif choices := schema.get("anyOf") or schema.get("oneOf"):
        for choice in choices:
            yield from _expanded(choice, definitions)
    else:
        yield Alternative(schema)
