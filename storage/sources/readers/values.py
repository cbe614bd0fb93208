"""Values of other people's records -> what JSON can hold and a document may keep."""

import json
import math
import re
from collections.abc import Iterable, Mapping
from datetime import date, time
from typing import Any

LONE_SURROGATES = "replaced_surrogates"
"""Note for each half of a surrogate pair that stood alone, and became U+FFFD: it is no character."""
NUMBERS_AS_TEXT = "numbers_as_text"
"""Note for each number that is kept as text: NaN, infinities, integers of more than 64 bits."""
VALUES_AS_TEXT = "values_as_text"
"""Note for each value that is kept as text because JSON has no type for it: dates, decimals, bytes."""
DEEP_VALUES = "deep_values_left_out"
"""Note for each value in whose place DEEP stands."""
LARGE_FLOATS = "large_floats"
"""Note for each float that may have been an integer of more than 64 bits, which the fast parser rounds."""

MAX_DEPTH = 200
"""Values inside so many others are left out: writers of JSON have limits from 254."""
DEEP = "(left out: nested too deep)"
SURROGATE = re.compile("[\ud800-\udfff]")
STRUCTURE = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[\]{}]', re.DOTALL)
INTEGERS = range(-(2**63), 2**64)


class NumberText(str):
    """The digits of a number that cannot be kept as one."""

    __slots__ = ()


def parse_json(data: bytes | str) -> Any:
    """Parse JSON, also with NaN and infinities, integers of any size, lone surrogates and any depth.

    Numbers that JSON or 64 bits cannot hold become NumberText, what is nested too deep DEEP. Raises: ValueError.
    """
    text = data.decode() if isinstance(data, bytes) else data
    try:
        return _parse(text)
    except RecursionError:
        return _parse(_cut_nesting(text.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass"))


def plain(value: Any) -> tuple[Any, tuple[str, ...]]:
    """Return a value that can be stored as JSON and read back the same, and notes of what was changed."""
    notes: list[str] = []
    return _plain(value, notes, 0), tuple(notes)


def _parse(text: str) -> Any:
    return json.loads(text, parse_int=_integer, parse_float=_float, parse_constant=NumberText)


def _integer(digits: str) -> int | NumberText:
    number = int(digits) if len(digits) <= 20 else None
    return number if number is not None and number in INTEGERS else NumberText(digits)


def _float(digits: str) -> float | NumberText:
    number = float(digits)
    return number if math.isfinite(number) else NumberText(digits)


def _cut_nesting(data: bytes) -> bytes:
    kept = []
    depth = begin = 0
    for found in STRUCTURE.finditer(data):
        if found[0] in b"[{":
            depth += 1
            if depth == MAX_DEPTH:
                kept += [data[begin : found.start()], json.dumps(DEEP).encode()]
        elif found[0] in b"]}":
            if depth == MAX_DEPTH:
                begin = found.end()
            depth -= 1
    kept.append(data[begin:] if depth < MAX_DEPTH else b"")
    return b"".join(kept)


def _plain(value: Any, notes: list[str], depth: int) -> Any:
    kind = type(value)
    if kind is str:
        return _text(value, notes)
    if value is None or kind is bool:
        return value
    if kind is int and value in INTEGERS:
        return value
    if kind is float and math.isfinite(value):
        if abs(value) >= 2.0**63:
            notes.append(LARGE_FLOATS)
        return value
    if kind in (int, float, NumberText):
        notes.append(NUMBERS_AS_TEXT)
        return str(value)
    if depth == MAX_DEPTH and isinstance(value, Mapping | Iterable):
        notes.append(DEEP_VALUES)
        return DEEP
    if isinstance(value, Mapping):
        return {_text(str(key), notes): _plain(inner, notes, depth + 1) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, notes, depth + 1) for inner in value]
    notes.append(VALUES_AS_TEXT)
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return value.isoformat() if isinstance(value, date | time) else _text(str(value), notes)


def _text(value: str, notes: list[str]) -> str:
    if value == DEEP:
        notes.append(DEEP_VALUES)
    if value.isascii():
        return value
    value, replaced = SURROGATE.subn("\ufffd", value)
    notes += [LONE_SURROGATES] * replaced
    return value
