"""The fields of a config for people to read: name, value or default, meaning."""

import json
from collections.abc import Iterator
from typing import Any

from pydantic.fields import FieldInfo

from storage.config import Config


def about(config: type[Config]) -> str:
    """Return the first line of what a config says about itself."""
    return (config.__doc__ or "").partition("\n")[0]


def value_lines(config: Config, prefix: str) -> Iterator[str]:
    """Yield a line for each field under its dotted name, as --set takes it, and those of configs inside."""
    for name, value in config:
        field, dotted = type(config).model_fields[name], f"{prefix}.{name}"
        if isinstance(value, Config):
            yield _with_meaning(f"{dotted}: {about(type(value))}", field)
            yield from value_lines(value, dotted)
        else:
            yield _with_meaning(f"{dotted} = {_json_text(value)}", field)


def default_rows(config: type[Config]) -> list[dict[str, Any]]:
    """Return each field of a config with its default, as JSON; one that must be given has none."""
    return [_default_row(name, field) for name, field in config.model_fields.items()]


def default_lines(config: type[Config]) -> Iterator[str]:
    """Yield a line for each field of a config, with its default."""
    for name, field in config.model_fields.items():
        row = _default_row(name, field)
        value = f"{name} = {_json_text(row['default'])}" if "default" in row else f"{name}: must be given"
        yield _with_meaning(value, field)


def _default_row(name: str, field: FieldInfo) -> dict[str, Any]:
    row: dict[str, Any] = {"field": name, "meaning": _meaning(field)}
    if field.is_required():
        return row
    return {**row, "default": json.loads(_json_text(field.get_default(call_default_factory=True)))}


def _with_meaning(text: str, field: FieldInfo) -> str:
    return f"{text}    # {meaning}" if (meaning := _meaning(field)) else text


def _meaning(field: FieldInfo) -> str:
    return (field.description or "").replace("\n", " ")


def _json_text(value: Any) -> str:
    return json.dumps(value, default=_plain)


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, Config) else str(value)
