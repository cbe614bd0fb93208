"""A mirror in The Pile's layout: its list of checksums says what belongs to it.

A source file is known by its name and its SHA-256, never by where it lies: moving a folder or changing to another
mirror of the same files changes no result.
"""

import fnmatch
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from storage.errors import InputError
from storage.formats.documents import TRAIN
from storage.sources.base import OpenSource, RecordFields, Source
from storage.sources.checked_files import file_digest
from storage.sources.http.errors import MissingFile
from storage.sources.layout import CHECKSUMS, read_checksums, split_of
from storage.sources.mirror.transports import FolderTransport, HttpTransport, Transport
from storage.sources.progress import DownloadProgress
from storage.sources.readers.registry import known_suffixes

log = logging.getLogger(__name__)

LISTING_RETRIES = 2
"""Failures to read SHA256SUMS.txt that are forgiven: `pile plan` waits for it."""
CHECKSUMS_BYTES = 16 << 20
"""More than 150,000 files: a larger list is something else."""


class MirrorConfig(RecordFields):
    """A mirror in The Pile's layout."""

    version: ClassVar[int] = 1
    excluded_from_key: ClassVar[frozenset[str]] = frozenset(
        {"url", "include", "parallel_downloads", "timeout_seconds", "retries", "max_window_mb"}
    )

    kind: Literal["mirror"] = "mirror"
    url: str = Field(min_length=1)
    """Folder or http(s) URL that holds train/NN.jsonl.zst, val.jsonl.zst, test.jsonl.zst and SHA256SUMS.txt.
    A URL with a public address leads to public addresses only, also by redirects and when DNS changes; one in a
    private network may redirect within it. A proxy set by HTTP_PROXY, HTTPS_PROXY or ALL_PROXY gets the names and
    decides itself where it connects."""
    include: tuple[str, ...] = Field(default=("*",), min_length=1)
    """Patterns for the names of the mirror's files: `train/0[0-3]*` takes four shards. Each must match."""
    parallel_downloads: int = Field(default=4, ge=1, le=64)
    """Files that are fetched and checked at the same time."""
    timeout_seconds: float = Field(default=30.0, gt=0)
    """Longest silence of the mirror before an attempt counts as failed."""
    retries: int = Field(default=5, ge=0)
    """Failed attempts in a row, without progress, that are forgiven for each file."""

    @model_validator(mode="after")
    def _check_url(self) -> Self:
        if "://" not in self.url:
            return self
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"url must be a folder or an http(s) URL, found one that begins {parts.scheme}://")
        if "@" in parts.netloc:
            raise ValueError(
                "url must not contain a user name or password, since recipes are kept with the results; "
                "put them into ~/.netrc"
            )
        if parts.query or parts.fragment:
            raise ValueError("url must be that of a folder, without ? and #")
        return self


class MirrorSource(Source[MirrorConfig]):
    """The listed files of a mirror; the first component of a name is its split."""

    config_type = MirrorConfig

    def __init__(self, config: MirrorConfig) -> None:
        super().__init__(config)
        self.columns = config.columns()
        self.parallel_files = config.parallel_downloads
        is_url = "://" in config.url
        self.origin = config.url.rstrip("/") if is_url else str(Path(config.url).expanduser().absolute())
        self._is_url = is_url

    @classmethod
    def example(cls, folder: Path) -> MirrorConfig:
        """Write a mirror with a file per split."""
        (folder / TRAIN).mkdir()
        listing = ""
        for name in ("train/00.jsonl", "val.jsonl", "test.jsonl"):
            (folder / name).write_text(f'{{"text": "{name}"}}\n', encoding="utf-8")
            listing += f"{file_digest(folder / name)}  {name}\n"
        (folder / CHECKSUMS).write_text(listing, encoding="utf-8")
        return MirrorConfig(url=str(folder))

    def digests(self) -> dict[str, str]:
        """Read the list of checksums."""
        with closing(self._transport(min(self.config.retries, LISTING_RETRIES))) as transport:
            return list_mirror(transport, self.origin, self.config.include)

    def split_of(self, name: str) -> str:
        """Return the split that the name begins with."""
        return split_of(name)

    @contextmanager
    def open(self, folder: Path) -> Iterator[OpenSource]:
        """Open the folder, or connections."""
        with closing(self._transport(self.config.retries)) as transport:
            yield _OpenMirror(transport, folder)

    def _transport(self, retries: int) -> Transport:
        if self._is_url:
            return HttpTransport(self.origin, timeout_seconds=self.config.timeout_seconds, retries=retries)
        return FolderTransport(self.origin)


class _OpenMirror(OpenSource):
    def __init__(self, transport: Transport, folder: Path) -> None:
        self._transport = transport
        self._folder = folder

    def list_files(self, digests: Mapping[str, str]) -> dict[str, str]:
        if others := self._transport.unlisted(digests):
            log.info("not taken, since not listed or not included: %s", ", ".join(others))
        return dict(digests)

    def fetch(self, name: str, sha256: str, progress: DownloadProgress) -> Path:
        return self._transport.fetch(name, sha256, self._folder, progress)


def list_mirror(transport: Transport, origin: str, include: Sequence[str] = ("*",)) -> dict[str, str]:
    """Return name -> SHA-256 of the mirror's corpus files that match one of the patterns, sorted by name.

    Raises: InputError if there is no usable list of checksums, or nothing (or nothing for a pattern) in it.
    """
    listing = f"{origin}/{CHECKSUMS}"
    try:
        data = transport.read(CHECKSUMS, CHECKSUMS_BYTES)
    except MissingFile as error:
        raise InputError(
            f"a mirror must hold {CHECKSUMS}, found none at {listing}; make one in the mirror's folder with: "
            f"find train val.jsonl.zst test.jsonl.zst -type f | sort | xargs sha256sum > {CHECKSUMS}"
        ) from error
    listed = {name: sha256 for name, sha256 in read_checksums(data, listing).items() if split_of(name)}
    if not listed:
        raise InputError(
            f"{listing} must list files named train/*, val.* and test.* ({known_suffixes()}), found none"
        )
    for pattern in include:
        if not fnmatch.filter(listed, pattern):
            raise InputError(
                f"every pattern of `include` must match a file of the mirror, {pattern!r} matches none of "
                f"{len(listed)}, such as {next(iter(listed))!r}"
            )
    return {
        name: sha256
        for name, sha256 in sorted(listed.items())
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in include)
    }
