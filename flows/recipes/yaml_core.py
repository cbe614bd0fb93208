"""YAML text as values, with the types of YAML 1.2's core schema.

PyYAML reads YAML 1.1, where `1e-05` and `6e-4` are text, `0100` is 64, `1:30` is 90, `no` is false and
`2026-01-01` is a date. Here only what looks like a number is one, only `true` and `false` are truth values, and a
recipe holds what JSON can hold. A name that stands twice in one map is refused: one of the two would be lost.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

from storage.errors import InputError

MAX_VALUES = 100_000
"""Values of one document: aliases of aliases can stand for more than any memory holds."""

TAG = "tag:yaml.org,2002:"
MERGE = "<<"
"""The name under which a map takes over the entries of others; YAML 1.2 has dropped it, but people write it."""


class Plain(NamedTuple):
    """A number or truth value with the text it was written as: a field that wants text takes that."""

    text: str
    value: bool | int | float


class _CoreLoader(yaml.SafeLoader):
    """Composes nodes whose scalars have the tags of the core schema."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012 - PyYAML copies it when a resolver is added


for _tag, _form in (
    ("null", r"~|null|Null|NULL|"),
    ("bool", r"true|True|TRUE|false|False|FALSE"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
    ),
):
    _CoreLoader.add_implicit_resolver(TAG + _tag, re.compile(rf"(?:{_form})\Z"), None)


def read_yaml(text: str, place: str) -> Any:
    """Return the value of one YAML document; numbers and truth values that stand without quotes as `Plain`.

    `place` begins every message. Raises: InputError with line and column.
    """
    try:
        loader = _CoreLoader(text)
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
        return None if node is None else _Values(place).of(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise InputError(f"{_at(place, mark)} must be YAML ({error.problem}){_advice(error)}") from None
    except yaml.reader.ReaderError as error:
        raise InputError(
            f"{place} must be text that YAML can hold, found the character U+{_code(error):04X} at position "
            f"{error.position}; write it as an escape in double quotes"
        ) from None
    except RecursionError:
        raise InputError(f"{place} must not be nested this deeply; a recipe needs few levels") from None


class _Values:
    """Turns nodes into values."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.count = 0
        self.above: list[yaml.Node] = []

    def of(self, node: yaml.Node) -> Any:
        self.count += 1
        if self.count > MAX_VALUES:
            raise InputError(f"{self.place} must hold fewer than {MAX_VALUES:,} values, aliases counted in")
        if any(node is other for other in self.above):
            raise self._refusal(node, "a value must not contain itself, found an alias of what it stands in")
        self.above.append(node)
        try:
            return self._converted(node)
        finally:
            self.above.pop()

    def _converted(self, node: yaml.Node) -> Any:
        kind = node.tag.removeprefix(TAG)
        if isinstance(node, yaml.MappingNode) and kind == "map":
            return self._map(node)
        if isinstance(node, yaml.SequenceNode) and kind == "seq":
            return [self.of(item) for item in node.value]
        if isinstance(node, yaml.ScalarNode) and kind in _SCALARS:
            try:
                return _SCALARS[kind](node.value)
            except (ValueError, KeyError):  # `!!int x`, or thousands of digits
                raise self._refusal(node, f"this cannot be read as a number, found {node.value!r:.60}") from None
        known = "null, bool, int, float, str, seq and map"
        raise self._refusal(node, f"a tag must be one of {known}, found {node.tag}; leave it out")

    def _map(self, node: yaml.MappingNode) -> dict[str, Any]:
        found: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self._refusal(key, "a name must be text, found a list or a map in its place")
            if key.value == MERGE and key.style is None:
                for other in self._merged(value):
                    merged = {**other, **merged}  # the first that has a name wins
            elif key.value in found:
                raise self._refusal(key, f"{key.value!r} must stand once, found it twice; remove one of the two")
            else:
                found[key.value] = self.of(value)
        return {**merged, **found}

    def _merged(self, node: yaml.Node) -> Iterator[dict[str, Any]]:
        for each in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            value = self.of(each)
            if not isinstance(value, dict):
                raise self._refusal(each, f"{MERGE} must take over a map or a list of maps, found something else")
            yield value

    def _refusal(self, node: yaml.Node, text: str) -> InputError:
        return InputError(f"{_at(self.place, node.start_mark)}: {text}")


def _whole_number(text: str) -> Plain:
    digits = text.removeprefix("0o") if text.startswith("0o") else text.removeprefix("0x")
    base = 8 if text.startswith("0o") else 16 if text.startswith("0x") else 10
    return Plain(text, int(digits, base))


_SCALARS: dict[str, Any] = {
    "null": lambda _: None,
    "bool": lambda text: Plain(text, {"true": True, "false": False}[text.lower()]),
    "int": _whole_number,
    "float": lambda text: Plain(text, float(re.sub(r"\.(?=inf|nan)", "", text.lower()))),
    "str": str,
}


def _at(place: str, mark: yaml.Mark | None) -> str:
    return f"{place}, line {mark.line + 1}, column {mark.column + 1}" if mark else place


def _advice(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or ""
    if "'\\t'" in problem:
        return "; indent with spaces, or write JSON"
    if "but found another document" in problem:
        return "; put one recipe into a file"
    if "alias" in problem or "alias" in (error.context or ""):
        return "; put text that begins with * into quotes"
    return ""


def _code(error: yaml.reader.ReaderError) -> int:
    return ord(error.character) if isinstance(error.character, str) else int(error.character)
