"""One byte string per value: the encoding behind every key, digest and record.

Two values have the same encoding exactly when they are equal as JSON. A type that JSON does not have is an
error, never its `str()`: a default representation would put memory addresses and paths into identities.
"""

import hashlib
import json
import math
from collections.abc import Iterator

KEY_LENGTH = 16
"""Hex digits of an artifact key: 64 bits, a collision within one stage needs about 4e9 artifacts."""


def canonical_json(value: object) -> bytes:
    """Encode `value` compactly, with sorted keys, as UTF-8.

    Raises: TypeError for a type other than dict (with str keys), list, tuple, str, int, float, bool and None;
    ValueError for NaN, infinities and text that is not valid Unicode. Both name the place (`$.a[2]`).
    """
    return "".join(_encode(value, "$")).encode()


def fingerprint(value: object) -> str:
    """Return the SHA-256 of the canonical encoding as 64 hex digits."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def artifact_key(stage: str, version: int, config: object, inputs: dict[str, str]) -> str:
    """Name the artifact of a stage: same code version, semantic config and input contents, same key."""
    identity = {"stage": stage, "version": version, "config": config, "inputs": inputs}
    return fingerprint(identity)[:KEY_LENGTH]


def _encode(value: object, place: str) -> Iterator[str]:
    # Exact types: subclasses (numpy floats, enums, str-like paths) print differently from what they equal.
    kind = type(value)
    if value is None or kind is bool or kind is int:
        yield json.dumps(value)
    elif kind is float:
        yield _encode_float(value, place)  # type: ignore[arg-type]
    elif kind is str:
        yield _encode_text(value, place)  # type: ignore[arg-type]
    elif kind in (list, tuple):
        yield "["
        for index, item in enumerate(value):  # type: ignore[arg-type, var-annotated]
            yield "," if index else ""
            yield from _encode(item, f"{place}[{index}]")
        yield "]"
    elif kind is dict:
        yield from _encode_dict(value, place)  # type: ignore[arg-type]
    else:
        raise TypeError(
            f"{place} must be a JSON value (dict, list, str, int, float, bool or None), found {kind.__name__} "
            f"{value!r:.60}; convert it before it becomes part of an identity"
        )


def _encode_dict(value: dict[object, object], place: str) -> Iterator[str]:
    for name in value:
        if type(name) is not str:
            raise TypeError(f"keys of {place} must be str, found {type(name).__name__} {name!r:.60}")
    yield "{"
    for index, name in enumerate(sorted(value)):  # type: ignore[type-var]
        yield "," if index else ""
        yield _encode_text(name, place)  # type: ignore[arg-type]
        yield ":"
        yield from _encode(value[name], f"{place}.{name}")
    yield "}"


def _encode_float(value: float, place: str) -> str:
    if not math.isfinite(value):
        raise ValueError(f"{place} must be a finite number, found {value}")
    return repr(value + 0.0)  # -0.0 + 0.0 is 0.0: equal numbers, equal encodings


def _encode_text(value: str, place: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{place} must be valid Unicode text, found {value!r:.60}") from error
    return json.dumps(value, ensure_ascii=False)
