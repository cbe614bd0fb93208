"""The readers, and which of them reads a file of a name.

A package adds one with an entry point of the group `pile_pipeline.readers`, named as the reader.
"""

from collections.abc import Iterable
from functools import cache
from typing import Any

from storage.errors import InputError
from storage.member_checks import check_class, check_name, check_version
from storage.registry import Registry
from storage.sources.readers.base import Reader
from storage.sources.readers.chunks import COMPRESSIONS


def check_reader(name: str, reader: Any) -> None:
    """Raise InputError unless this is a class of readers of that name that says which files are its own."""
    check_class(reader, Reader)
    check_name(reader.name, name)
    check_version(reader.version)
    suffixes = reader.suffixes
    if not isinstance(suffixes, tuple) or not suffixes or not all(isinstance(s, str) and s for s in suffixes):
        raise InputError(f"must have a tuple of ends of file names in `suffixes`, found {suffixes!r:.200}")


def suffix_claims(reader: type[Reader]) -> Iterable[str]:
    """Return the files that must have no other reader."""
    return [f"files that end in {suffix}" for suffix in reader.suffixes]


READERS: Registry[type[Reader]] = Registry(
    "reader",
    "pile_pipeline.readers",
    {
        "jsonl": "storage.sources.readers.jsonl:JsonLinesReader",
        "parquet": "storage.sources.readers.parquet.reader:ParquetReader",
        "json": "storage.sources.readers.json:JsonReader",
        "csv": "storage.sources.readers.csv:CsvReader",
        "arrow": "storage.sources.readers.arrow.reader:ArrowReader",
        "leipzig": "storage.sources.readers.leipzig:LeipzigReader",
        "plain-text": "storage.sources.readers.plain_text:PlainTextReader",
        "archive": "storage.sources.readers.archive.reader:ArchiveReader",
    },
    check_reader,
    suffix_claims,
)


def make_reader(kind: type[Reader]) -> Reader:
    """Return a reader that can find the others."""
    reader = kind()
    reader.reader_for = reader_for
    return reader


def reader_for(name: str) -> Reader:
    """Return the reader of a file. Raises: InputError if the end of its name says no known format."""
    suffixes = readers_by_suffix()
    for suffix in sorted(suffixes, key=len, reverse=True):
        if name.lower().endswith(suffix):
            return make_reader(READERS.get(suffixes[suffix]))
    raise InputError(f"the name of a source file must end in {known_suffixes()}, found {name!r}")


def is_readable(name: str) -> bool:
    """Tell whether there is a reader for files of that name."""
    return name.lower().endswith(tuple(readers_by_suffix()))


def known_suffixes() -> str:
    """Return what the names of readable files end in, for people: compressions are said once."""
    plain = [suffix for suffix in readers_by_suffix() if not suffix.endswith(COMPRESSIONS)]
    return f"{', '.join(plain)} (text also with {' '.join(COMPRESSIONS)})"


@cache
def readers_by_suffix() -> dict[str, str]:
    """Return the ends of file names in lower case and the names of their readers, in the order of the registry."""
    return {suffix.lower(): name for name, reader in READERS.members() for suffix in reader.suffixes}
