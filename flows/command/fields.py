"""The fields of a config for people to read: name, value or default, meaning."""

import json
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from storage.config import Config

COLUMNS = 80
"""Widest line: that of the smallest usual terminal."""


def about(config: type[Config]) -> str:
    """Return the first line of what a config says about itself."""
    return (config.__doc__ or "").partition("\n")[0]


def value_lines(config: Config, prefix: str, default: Any = None, *, full: bool = True) -> Iterator[str]:
    """Yield lines for each field under its dotted name, as --set takes it, and those of configs inside.

    Without `full` only fields that differ: from `default`, where that is a config of the same type, else from the
    defaults of the type; of a map the entries.
    """
    for name, value in config:
        field, dotted = type(config).model_fields[name], f"{prefix}.{name}"
        usual = dict(default)[name] if type(default) is type(config) else _default_of(field)
        if not full and value == usual and not field.is_required() and not _is_tag(field):
            continue
        if isinstance(value, Config):
            yield from _with_meaning(f"{dotted}: {about(type(value))}", field)
            yield from value_lines(value, dotted, usual, full=full)
        elif not full and isinstance(value, Mapping) and isinstance(usual, Mapping):
            yield from _entry_lines(value, usual, dotted)
        else:
            yield from _with_meaning(f"{dotted} = {_json_text(value)}", field)


def default_rows(config: type[Config]) -> list[dict[str, Any]]:
    """Return each field of a config with its default, as JSON; one that must be given has none."""
    return [_default_row(name, field) for name, field in config.model_fields.items()]


def default_lines(config: type[Config]) -> Iterator[str]:
    """Yield lines for each field of a config, with its default."""
    for name, field in config.model_fields.items():
        row = _default_row(name, field)
        value = f"{name} = {_json_text(row['default'])}" if "default" in row else f"{name}: must be given"
        yield from _with_meaning(value, field)


def _entry_lines(value: Mapping[str, Any], usual: Mapping[str, Any], dotted: str) -> Iterator[str]:
    """Yield what --set makes of the default: an entry that was taken out is null there."""
    if not value:
        yield f"{dotted} = {{}}"
        return
    for name in dict.fromkeys([*value, *usual]):
        if name not in value:
            yield f"{dotted}.{name} = null"
        elif name not in usual or value[name] != usual[name]:
            yield from _wrapped(f"{dotted}.{name} = {_json_text(value[name])}")


def _is_tag(field: FieldInfo) -> bool:
    """Tell whether a field says which member of a union this is: it has one value and is worth showing always."""
    return get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1


def _default_of(field: FieldInfo) -> Any:
    return None if field.is_required() else field.get_default(call_default_factory=True)


def _default_row(name: str, field: FieldInfo) -> dict[str, Any]:
    row: dict[str, Any] = {"field": name, "meaning": _meaning(field)}
    if field.is_required():
        return row
    return {**row, "default": json.loads(_json_text(field.get_default(call_default_factory=True)))}


def _with_meaning(text: str, field: FieldInfo) -> Iterator[str]:
    """Yield the text and what it means: beside it if there is room, else below."""
    meaning = _meaning(field)
    one_line = f"{text}    # {meaning}" if meaning else text
    if len(one_line) <= COLUMNS - 2:
        yield one_line
        return
    yield from _wrapped(text)
    for line in textwrap.wrap(meaning, COLUMNS - 8, break_long_words=False, break_on_hyphens=False):
        yield f"    # {line}"


def _wrapped(text: str) -> Iterator[str]:
    yield from textwrap.wrap(
        text, COLUMNS - 2, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )


def _meaning(field: FieldInfo) -> str:
    return (field.description or "").replace("\n", " ")


def _json_text(value: Any) -> str:
    return json.dumps(value, default=_plain, ensure_ascii=False)


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, Config) else str(value)
