"""Files and options as values, before anybody asks what they mean: JSON as JSON, YAML as YAML 1.2."""

import codecs
import json
import re
from pathlib import Path
from typing import Any

from flows.recipes.yaml_core import read_yaml
from storage.artifacts.records import Manifest, Run, decode_record
from storage.errors import InputError

SUFFIXES = (".yaml", ".yml", ".json")
"""How a recipe file ends, in upper or lower case; the end says what it is."""

MAX_BYTES = 16 << 20
"""A larger file is a corpus and no recipe."""

# UTF-32 comes first: its little-endian mark begins with that of UTF-16.
OTHER_ENCODINGS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def is_recipe_file(name: str) -> bool:
    """Tell whether a name is that of a recipe file."""
    return name.lower().endswith(SUFFIXES)


def read_file(path: Path) -> Any:
    """Return the value in a .json or .yaml file, or the recipe that a record of the store keeps.

    Raises: InputError for what cannot be read, with its place; CorruptRecordError for a damaged record.
    """
    data = _bytes_of(path)
    text = _text_of(data, path)
    if not text.strip():
        raise InputError(f"{path} must hold the fields of a recipe, found nothing in it")
    if not path.name.lower().endswith(".json"):
        return read_yaml(text, str(path))
    value = read_json(text, str(path))
    if isinstance(value, dict) and "record_sha256" in value:
        if value.get("kind") == Run.kind:
            return decode_record(Run, data, str(path)).recipe
        if value.get("kind") == Manifest.kind:
            return decode_record(Manifest, data, str(path)).recipe
    return value


def read_json(text: str, place: str) -> Any:
    """Return the value of a JSON text. Raises: InputError, also for NaN and names that stand twice."""
    try:
        pairs = json.loads(text, object_pairs_hook=_Pairs, parse_constant=_no_constant, parse_int=_whole_number)
        return _without_pairs(pairs, place, "")
    except json.JSONDecodeError as error:
        where = f"{place}, line {error.lineno}, column {error.colno}"
        shown = error.doc.splitlines()[error.lineno - 1].strip() if error.doc.strip() else ""
        raise InputError(f"{where} must be JSON, found {shown!r:.80} ({error.msg.lower()})") from None
    except _NoNumber as error:
        raise InputError(f"{place}: every number must be one that JSON has, found {error}") from None
    except RecursionError:
        raise InputError(f"{place} must not be nested this deeply; a recipe needs few levels") from None


class _NoNumber(Exception):
    """Something that Python would read as a number."""


class _Pairs(list[tuple[str, Any]]):
    """An object as it was written."""


def _no_constant(word: str) -> Any:
    raise _NoNumber(word)


def _whole_number(digits: str) -> int:
    try:
        return int(digits)
    except ValueError:  # Python refuses thousands of digits, which take it quadratic time
        raise _NoNumber(f"one of {len(digits):,} digits") from None


def _without_pairs(value: Any, place: str, path: str) -> Any:
    if isinstance(value, _Pairs):
        found: dict[str, Any] = {}
        for name, item in value:
            dotted = f"{path}.{name}" if path else name
            if name in found:
                raise InputError(f"{place}: {dotted!r} must stand once, found it twice; remove one of the two")
            found[name] = _without_pairs(item, place, dotted)
        return found
    if isinstance(value, list):
        return [_without_pairs(item, place, f"{path}[{index}]") for index, item in enumerate(value)]
    return value


def _bytes_of(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise InputError(f"the recipe file must be readable, but there is no {path}; correct the path") from None
    except IsADirectoryError:
        raise InputError(f"the recipe file must be readable, but {path} is a folder; name a file in it") from None
    except OSError as error:
        raise InputError(f"the recipe file must be readable, found {path}: {error.strerror}") from None
    except ValueError:  # a zero byte in the name
        raise InputError(f"the recipe file must have a name that a file can have, found {str(path)!r}") from None
    if len(data) > MAX_BYTES:
        raise InputError(f"a recipe file must be at most {MAX_BYTES >> 20} MiB, found more in {path}")
    return data


def _text_of(data: bytes, path: Path) -> str:
    for mark, encoding in OTHER_ENCODINGS.items():
        if data.startswith(mark):
            raise _not_utf8(path, encoding)
    if re.match(rb"[^\0]\0|\0[^\0]", data):
        raise _not_utf8(path, "UTF-16 without a byte order mark")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _not_utf8(path, f"the byte 0x{data[error.start]:02x} in line {line}") from None


def _not_utf8(path: Path, found: str) -> InputError:
    return InputError(f"{path} must be UTF-8, found {found}; save it as UTF-8, for example with iconv")
