"""The readers, and which of them reads a file of a name.

A package adds one with an entry point of the group `pile_pipeline.readers`, named as the reader.
"""

from functools import cache

from storage.errors import InputError
from storage.registry import Registry
from storage.sources.readers.base import Reader

READERS: Registry[type[Reader]] = Registry(
    "reader",
    "pile_pipeline.readers",
    {
        "jsonl": "storage.sources.readers.jsonl:JsonLinesReader",
        "parquet": "storage.sources.readers.parquet.reader:ParquetReader",
        "leipzig": "storage.sources.readers.leipzig:LeipzigReader",
        "plain-text": "storage.sources.readers.plain_text:PlainTextReader",
    },
)


def reader_for(name: str) -> Reader:
    """Return the reader of a file. Raises: InputError if the end of its name says no known format."""
    suffixes = readers_by_suffix()
    for suffix in sorted(suffixes, key=len, reverse=True):
        if name.endswith(suffix):
            return READERS.get(suffixes[suffix])()
    raise InputError(f"the name of a source file must end in {', '.join(suffixes)}, found {name!r}")


def is_readable(name: str) -> bool:
    """Tell whether there is a reader for files of that name."""
    return name.endswith(tuple(readers_by_suffix()))


@cache
def readers_by_suffix() -> dict[str, str]:
    """Return the ends of file names and the names of their readers, in the order of the registry.

    Raises: InputError if two readers claim the same: what a recipe means must not depend on chance.
    """
    found: dict[str, str] = {}
    for name, reader in READERS.members():
        for suffix in reader.suffixes:
            if found.setdefault(suffix, name) != name:
                raise InputError(
                    f"files that end in {suffix} must have one reader, found {found[suffix]} and {name}; "
                    f"uninstall the package of one of them"
                )
    return found
