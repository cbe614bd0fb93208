"""Records with named fields -> documents: what all formats of such records have in common."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import orjson

from storage.formats.documents import Document
from storage.sources.readers.base import Columns, not_utf8
from storage.sources.readers.values import LARGE_FLOATS, NumberText, parse_json, plain

SUBSET = "pile_set_name"
"""The Pile's name of a subset: a field of `meta`, or a column of its own."""
META = "meta"
MAX_SUBSET_LENGTH = 200
SHOWN_FIELDS = 20

META_NOT_OBJECT = "meta_not_object"
"""Note of a document whose `meta` is no object: it is kept as `meta` of the metadata."""


def document_of_json(data: bytes, columns: Columns, document_id: str) -> Document | str:
    """Return the document that one JSON object holds, or the reason why it holds none.

    What the fast parser refuses or rounds, for the sake of a field that is perhaps not taken, a slow one reads.
    """
    try:
        found = document_of(orjson.loads(data), columns, document_id)
        if not isinstance(found, Document) or LARGE_FLOATS not in found.notes:
            return found
    except orjson.JSONDecodeError as error:
        reason = f"not JSON: {error}"
    try:
        found = document_of(parse_json(data), columns, document_id)
    except ValueError:
        return not_utf8(data) or reason
    if not isinstance(found, Document):
        return found
    text, notes = plain(found.text)
    notes = tuple(note for note in (*found.notes, *notes) if note != LARGE_FLOATS)
    return replace(found, text=text, notes=notes)


def document_of(record: Any, columns: Columns, document_id: str) -> Document | str:
    """Return the document that a record holds, or the reason why it holds none."""
    if type(record) is not dict:
        return f"not a JSON object but {type(record).__name__}"
    text = next((value for name in columns.text if type(value := field_of(record, name)) is str), None)
    if text is None:
        return _no_text(record, columns)
    subset = next((value for name in columns.subset_fields if (value := field_of(record, name)) is not None), None)
    meta, notes = _meta_of(record.get(META) if META not in columns.text else None)
    if subset is None:
        subset = meta.get(SUBSET)  # where `meta` was text
    meta.pop(SUBSET, None)
    if subset is None:
        subset = columns.subset
    if type(subset) is not str or not 0 < len(subset) <= MAX_SUBSET_LENGTH:
        return f"the field that names the subset is not a name of 1 to {MAX_SUBSET_LENGTH} characters"
    for name, field in (("id", columns.id), *((field, field) for field in columns.keep)):
        value = field_of(record, field)
        if value is not None:
            if name in meta and meta[name] != value:
                meta[f"{META}.{name}"] = meta[name]
            meta[name] = value
    meta, more_notes = plain(meta)
    return Document(document_id, subset, text, meta, (*notes, *more_notes))


def field_of(record: Mapping[str, Any], name: str) -> Any:
    """Return the value of a field, None if it is not there. A dot in its name leads into an object."""
    value = record.get(name)
    if value is not None or "." not in name:
        return value
    first, _, rest = name.partition(".")
    inner = record.get(first)
    return field_of(inner, rest) if isinstance(inner, dict) else None


def _meta_of(meta: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    if meta is None or meta == "":
        return {}, ()
    if type(meta) is dict:
        return dict(meta), ()
    if isinstance(meta, str):
        try:
            inner = parse_json(meta)
        except ValueError:
            inner = None
        if type(inner) is dict:
            return inner, ()
    return {META: meta}, (META_NOT_OBJECT,)


def _no_text(record: Mapping[str, Any], columns: Columns) -> str:
    if len(columns.text) == 1:
        value = field_of(record, columns.text[0])
        found = (
            "missing" if value is None else "a number" if isinstance(value, NumberText) else type(value).__name__
        )
        return f"field {columns.text[0]!r} is {found} instead of text"
    names = ", ".join(map(repr, list(record)[:SHOWN_FIELDS])) or "no field"
    wanted = ", ".join(map(repr, columns.text))
    return f"none of the fields {wanted} holds text, there is {names}; name it in download.source.text_field"


def first_text_field(name: str, records: Iterable[bytes], columns: Columns) -> dict[str, str]:
    """Return the field of the first text among JSON records, by the name of their file."""
    for data in records:
        try:
            record = parse_json(data)
        except ValueError:
            continue
        if type(record) is dict:
            for field in columns.text:
                if type(field_of(record, field)) is str:
                    return {name: field}
    return {}
