"""What a user may choose about the download, and what its result depends on."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import ConfigDict, Field

from storage.config import Config
from storage.sources.base import Source
from storage.sources.readers.registry import READERS
from storage.sources.registry import AnySourceConfig, make_source

VERSION = 3  # which documents share a shard follows from the files up to there, and no longer from all of them


class DownloadConfig(Config):
    """Where the corpus comes from, and how large its shards are."""

    # A refused address may hold a password, which the error must not repeat.
    model_config = ConfigDict(hide_input_in_errors=True)

    excluded_from_key: ClassVar[frozenset[str]] = frozenset({"max_bad_lines", "max_bad_share"})

    source: AnySourceConfig
    """Where the corpus comes from: `kind` and the fields of that kind; `pile plugins source` lists the kinds,
    `pile plugins source mirror` the fields of one."""
    sample_share: float = Field(default=1.0, gt=0, le=1)
    """Share of the text that is taken, to try a recipe out as `pile smoke` does: whole files spread over each
    split, or the beginning of one; 4 MB of training text at least."""
    shard_bytes: int | None = Field(default=None, ge=1, le=1 << 30)
    """Uncompressed bytes of a shard of the result. By default a 64th of the files up to there, in the order of
    their names, but 1 MiB at least and 256 MiB at most: one file of 155 MB becomes 64 shards of 2.4 MB. They
    never depend on the machine, and files that are added behind the last one change none that are full.
    A GiB at most: a worker that is killed loses the shard that it works on, less than a minute of work."""
    max_bad_lines: int = Field(default=1, ge=0)
    """Records without a document (bad lines) that are always left out. The stage fails if there are more than this
    and more than the share `max_bad_share`, once all files are read. They are kept whole in the report
    quarantine.jsonl in any case. Not part of the key: raised after a failure, the next run goes on from there."""
    max_bad_share: float = Field(default=0.0001, ge=0, le=1)
    """Share of all records that may be bad: 0.0001 leaves out 100 of a million. A file whose first 1,000 records
    are all bad is of another kind than its name says, and fails the stage at once, unless this is 1. Not part of
    the key, as `max_bad_lines`."""


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
