"""Records with named fields -> documents: what JSON lines and Parquet rows have in common."""

from typing import Any

from storage.formats.documents import Document
from storage.sources.readers.base import Columns

SUBSET = "pile_set_name"
"""The Pile's name of a subset: a field of `meta`, or a Parquet column of its own."""
META = "meta"
MAX_SUBSET_LENGTH = 200


def document_of(record: Any, columns: Columns, document_id: str) -> Document | str:
    """Return the document that a record holds, or the reason why it holds none."""
    if type(record) is not dict:
        return f"not a JSON object but {type(record).__name__}"
    text = record.get(columns.text)
    if type(text) is not str:
        return f"field {columns.text!r} is {'missing' if text is None else type(text).__name__} instead of text"
    meta = record.get(META)
    if meta is None:
        meta = {}
    if type(meta) is not dict:
        return f"field 'meta' is {type(meta).__name__} instead of an object"
    subset = meta.pop(SUBSET, None)
    if subset is None:
        subset = columns.subset
    if type(subset) is not str or not 0 < len(subset) <= MAX_SUBSET_LENGTH:
        return f"field 'meta.pile_set_name' is not a name of 1 to {MAX_SUBSET_LENGTH} characters"
    return Document(document_id, subset, text, meta)
