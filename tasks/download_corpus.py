"""Download: a mirror, local files or the Python installation -> verified shards of even size.

Input   one of   mirror                    a folder or URL in The Pile's layout, with SHA256SUMS.txt
                 files                     .jsonl, .jsonl.zst, .jsonl.gz, .parquet, .txt
                 python_environment_bytes  the text that this Python installation carries
Output  train-00000, val-00000, test-00000, ...  role `documents` (*.jsonl.zst)
Resume  a half-fetched file continues at its last byte, a committed shard is never written again.
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from operator import attrgetter
from typing import ClassVar
from urllib.parse import urlsplit

import orjson
from pydantic import ConfigDict, Field, model_validator

from storage.config import Config
from storage.errors import Fault, InputError
from storage.formats import SPLITS
from storage.http import HttpMirror
from storage.http_server import serve_folder
from storage.records import Part
from storage.source_formats import BadLine, Fields
from storage.sources import FolderMirror, SourceFile, find_files, list_mirror, open_mirror, split_of
from tasks.build import Build
from tasks.download_files import Receiver
from tasks.python_environment import environment_digest
from tasks.python_environment_mirror import lay_out_mirror
from tasks.reshard import BAD_LINES, WriteShards, plan_groups, too_many_bad_lines
from tasks.stage import Stage, stage_key

log = logging.getLogger(__name__)

LISTING_RETRIES = 2
"""Failures to read SHA256SUMS.txt that are forgiven: `pile plan` waits for it."""
MIRROR = "mirror:"
FILE = "file:"
"""Kinds of sources by the prefix of their names: the same file can come with a split or be divided by hash."""


class DownloadConfig(Config):
    """Where the corpus comes from, and how large its shards are."""

    # A refused address may hold a password, which the error must not repeat.
    model_config = ConfigDict(hide_input_in_errors=True)

    places: ClassVar[frozenset[str]] = frozenset(
        {"mirror", "files", "include", "max_bad_lines", "parallel_downloads", "timeout_seconds", "retries"}
    )

    mirror: str = ""
    """Folder or http(s) URL that holds train/NN.jsonl.zst, val.jsonl.zst, test.jsonl.zst and SHA256SUMS.txt."""
    files: tuple[str, ...] = ()
    """Local files or patterns such as `data/**/*.jsonl.zst`; also .jsonl, .jsonl.gz, .parquet, and .txt, which is
    one document, unless it ends in -sentences.txt (Leipzig corpora: one document per line)."""
    python_environment_bytes: int = Field(default=0, ge=0)
    """Bytes of text to take from the running Python installation: source, docstrings, descriptions, licences."""
    include: tuple[str, ...] = ("*",)
    """Patterns for the names of a mirror's files: `train/0[0-3]*` takes four shards. Each must match."""
    text_field: str = Field(default="text", min_length=1)
    """Field or Parquet column that holds the text."""
    subset: str = Field(default="unlabelled", min_length=1, max_length=200)
    """Subset of documents that carry no `meta.pile_set_name`."""
    shard_bytes: int = Field(default=256 << 20, ge=1)
    """Uncompressed bytes of a shard of the result; what is left is spread evenly over the shards."""
    val_fraction: float = Field(default=0.01, ge=0, lt=1)
    """Share of validation documents, by hash of the text, for sources that do not come divided."""
    test_fraction: float = Field(default=0.01, ge=0, lt=1)
    """Share of test documents, likewise."""
    max_bad_lines: int = Field(default=0, ge=0)
    """Lines without a document that are left out and reported; one more and the stage fails. Not part of the
    identity: after a failure it can be raised without fetching and dividing everything again."""
    parallel_downloads: int = Field(default=4, ge=1, le=64)
    """Files that are fetched and checked at the same time."""
    timeout_seconds: float = Field(default=30.0, gt=0)
    """Longest silence of a mirror before an attempt counts as failed."""
    retries: int = Field(default=5, ge=0)
    """Failed attempts in a row, without progress, that are forgiven for each file of a mirror."""

    @model_validator(mode="after")
    def _check(self) -> "DownloadConfig":
        chosen = [name for name in ("mirror", "files", "python_environment_bytes") if getattr(self, name)]
        if len(chosen) != 1:
            raise ValueError(
                f"exactly one of mirror, files and python_environment_bytes must be set, "
                f"found {' and '.join(chosen) or 'none'}"
            )
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError("val_fraction and test_fraction must leave something to train on")
        defaults = {name: field.default for name, field in DownloadConfig.model_fields.items()}
        useless = {
            "mirror": ("val_fraction", "test_fraction"),
            "files": ("include",),
            "python_environment_bytes": ("include", "text_field"),
        }[chosen[0]]
        for name in useless:
            if getattr(self, name) != defaults[name]:
                raise ValueError(f"{name} has no effect together with {chosen[0]}; leave it out")
        if "://" in self.mirror:
            _check_url(self.mirror)
        return self


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"mirror must be a folder or an http(s) URL, found one that begins {parts.scheme}://")
    if "@" in parts.netloc:
        raise ValueError(
            "mirror must not contain a user name or password, since recipes are kept with the results; "
            "put them into ~/.netrc"
        )
    if parts.query or parts.fragment:
        raise ValueError("mirror must be the URL of a folder, without ? and #")


def corpus_sources(config: DownloadConfig) -> dict[str, str]:
    """Return name -> SHA-256 of everything that the stage would read; writes nothing.

    Raises: InputError, Fault if the mirror cannot be reached.
    """
    if config.files:
        return {FILE + file.name: file.sha256 for file in find_files(config.files)}
    if config.mirror:
        mirror = open_mirror(
            config.mirror, timeout_seconds=config.timeout_seconds, retries=min(config.retries, LISTING_RETRIES)
        )
        with closing(mirror):
            return {MIRROR + name: sha256 for name, sha256 in list_mirror(mirror, config.include).items()}
    return {"python-environment": environment_digest()}


def download_corpus(config: DownloadConfig, *, build: Build) -> list[Part]:
    """Bring the sources here, check them, and divide them into shards of even size.

    Raises: InputError for bad data, a wrong checksum or more than `max_bad_lines` bad lines; Fault for a
    mirror that cannot be reached; OSError from the local disk.
    """
    from tasks.shards import for_each_shard  # noqa: PLC0415 - loads datatrove, which `pile plan` must not

    sources = corpus_sources(config)
    if stage_key(STAGE, config, {}, sources) != build.writer.key:
        raise Fault("the sources changed while the run began; run again to take them as they are now")
    splits = _bring_sources(config, sources, build)
    hold_out = [
        split
        for split, fraction in (("val", config.val_fraction), ("test", config.test_fraction))
        if config.files and fraction > 0
    ]
    groups = plan_groups(splits, config.shard_bytes, hold_out=hold_out)
    names = sorted((part for group in groups for part in group.parts), key=_part_order)
    log.info("%d source files become %d parts", sum(map(len, splits.values())), len(names))
    finished = frozenset(build.finished_parts(names))
    origin = _origin(config, splits)
    work = WriteShards(
        build.writer, _fields(config), config.val_fraction, config.test_fraction, config.max_bad_lines, origin
    )
    to_do = [
        replace(group, finished=finished.intersection(group.parts))
        for group in groups
        if not finished.issuperset(group.parts)
    ]
    for_each_shard(build, to_do, work, name=attrgetter("name"))
    committed = build.writer.parts()
    parts = [committed[name] for name in names]
    _check_result(config, parts, origin)
    _report(build, parts)
    return parts


def _fields(config: DownloadConfig) -> Fields:
    return Fields(text=config.text_field, subset=config.subset)


def _part_order(part: str) -> tuple[int, str]:
    return SPLITS.index(part.partition("-")[0]), part


def _bring_sources(
    config: DownloadConfig, sources: Mapping[str, str], build: Build
) -> dict[str, list[SourceFile]]:
    """Return checked and measured local files by split; `train` holds all of what comes undivided."""
    receiver = Receiver(_fields(config), config.parallel_downloads, build.progress)
    if config.files:
        return {"train": receiver.take_local(find_files(config.files))}
    folder = build.writer.shared_scratch() / "sources"
    if config.mirror:
        listed = {name.removeprefix(MIRROR): sha256 for name, sha256 in sources.items()}
        mirror = open_mirror(config.mirror, timeout_seconds=config.timeout_seconds, retries=config.retries)
        if isinstance(mirror, FolderMirror) and (others := mirror.unlisted(listed)):
            log.info("not taken, since not listed or not included: %s", ", ".join(others))
        return _by_split(receiver.take_from_mirror(mirror, listed, folder))
    laid_out = build.writer.shared_scratch() / "mirror"
    log.info("laying out %d bytes of text of this Python installation", config.python_environment_bytes)
    lay_out_mirror(laid_out, config.python_environment_bytes, config.val_fraction, config.test_fraction)
    with serve_folder(laid_out) as url:
        mirror = HttpMirror(url, timeout_seconds=config.timeout_seconds, retries=config.retries)
        return _by_split(receiver.take_from_mirror(mirror, list_mirror(mirror), folder))


def _by_split(files: list[SourceFile]) -> dict[str, list[SourceFile]]:
    found = {split: [file for file in files if split_of(file.name) == split] for split in SPLITS}
    return {split: members for split, members in found.items() if members}


def _origin(config: DownloadConfig, splits: Mapping[str, Sequence[SourceFile]]) -> str:
    """Return the folder or URL that the names of the sources are relative to, '' for what was laid out here."""
    if config.files:
        first = splits["train"][0]
        return str(first.path).removesuffix(f"/{first.name}")
    return config.mirror.rstrip("/")


def _bad_lines(parts: list[Part]) -> list[BadLine]:
    return [BadLine(**line) for part in parts for line in part.info.get(BAD_LINES, ())]


def _check_result(config: DownloadConfig, parts: list[Part], origin: str) -> None:
    bad_lines = _bad_lines(parts)
    if len(bad_lines) > config.max_bad_lines:
        raise too_many_bad_lines(bad_lines[0], len(bad_lines), config.max_bad_lines, origin)
    if not any(part.counts.get("documents") for part in parts):
        raise InputError(
            "the sources must hold at least one document with text, found none; look into the files that "
            "download.files or download.mirror and download.include name, and name others"
        )


def _report(build: Build, parts: list[Part]) -> None:
    """Show documents and bytes by subset and split; keep the bad lines where people find them."""
    counts: dict[tuple[int, str, str], Counter[str]] = {}
    for part in parts:
        split = part.part.partition("-")[0]
        for name, count in part.counts.items():
            kind, _, subset = name.partition(".")
            if subset and kind in ("documents", "text_bytes"):
                counts.setdefault((SPLITS.index(split), split, subset), Counter())[kind] += count
    build.table(
        "Downloaded",
        [
            {"subset": subset, "split": split, "documents": count["documents"], "text bytes": count["text_bytes"]}
            for (_, split, subset), count in sorted(counts.items())
        ],
    )
    if bad_lines := _bad_lines(parts):
        log.warning("%d bad lines were left out; they are in the report quarantine.jsonl", len(bad_lines))
        lines = (orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE) for line in bad_lines)
        build.report("quarantine.jsonl", b"".join(lines))


STAGE = Stage(name="download", version=1, config=DownloadConfig, build=download_corpus, sources=corpus_sources)
