"""What a user may choose about the download, and what its result depends on."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import ConfigDict, Field

from storage.config import Config
from storage.sources.base import Source
from storage.sources.readers.registry import READERS
from storage.sources.registry import AnySourceConfig, make_source

VERSION = 2  # the source is a config of its own with a version, and readers are part of the key


class DownloadConfig(Config):
    """Where the corpus comes from, and how large its shards are."""

    # A refused address may hold a password, which the error must not repeat.
    model_config = ConfigDict(hide_input_in_errors=True)

    excluded_from_key: ClassVar[frozenset[str]] = frozenset({"max_bad_lines"})

    source: AnySourceConfig
    """Where the corpus comes from: `kind` and the fields of that kind; `pile plugins source` lists the kinds,
    `pile plugins source mirror` the fields of one."""
    shard_bytes: int = Field(default=256 << 20, ge=1)
    """Uncompressed bytes of a shard of the result; what is left is spread evenly over the shards."""
    max_bad_lines: int = Field(default=0, ge=0)
    """Lines without a document that are left out and reported; one more and the stage fails. Not part of the
    identity: after a failure it can be raised without fetching and dividing everything again."""


def corpus_sources(config: DownloadConfig) -> dict[str, str]:
    """Return what the result depends on: the digests of the source by name, and the readers' versions.

    Writes nothing. Raises: InputError, Fault if the source cannot be reached.
    """
    source = make_source(config.source)
    return names_in_key(source, source.digests())


def names_in_key(source: Source[Any], digests: Mapping[str, str]) -> dict[str, str]:
    """Return what stands for the digests of a source in the key: they and the versions of their readers."""
    readers = {f"reader:{name}": str(READERS.get(name).version) for name in sorted(source.readers(digests))}
    return readers | {f"{source.config.kind}:{name}": digest for name, digest in digests.items()}
