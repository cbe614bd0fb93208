"""The work of the download: fetch the files of the source, then divide their documents into shards."""

import logging
from dataclasses import replace
from operator import attrgetter
from typing import Any

from storage.artifacts.records import Part
from storage.canonical import artifact_key
from storage.errors import Fault, InputError
from storage.formats.documents import SPLITS
from storage.sources.base import Source
from storage.sources.checked_files import SourceFile
from storage.sources.registry import make_source
from tasks.core.context import StageContext
from tasks.download.config import VERSION, DownloadConfig, names_in_key
from tasks.download.files import fetch_files
from tasks.download.plan import plan_groups
from tasks.download.quarantine import REPORT, Quarantine, without_quarantine
from tasks.download.reshard import WriteShards
from tasks.download.sample import Sample
from tasks.download.splits import report_splits
from tasks.executors.local import for_each_shard

log = logging.getLogger(__name__)


def download_corpus(config: DownloadConfig, *, context: StageContext) -> list[Part]:
    """Bring the files of the source here, check them, and divide them into shards of even size.

    Raises: InputError for bad data, a wrong checksum or more bad lines than are allowed; Fault for a source that
    cannot be reached; OSError from the local disk.
    """
    source = make_source(config.source)
    digests = source.digests()
    key = artifact_key(context.writer.stage, VERSION, config.identity(), names_in_key(source, digests))
    if key != context.writer.key:
        raise Fault("the sources changed while the run began; run again to take them as they are now")
    folder = context.writer.shared_scratch() / "source"
    sample = Sample(config.sample_share, source.split_of)
    look_inside = config.max_bad_share < 1
    files = fetch_files(source, digests, folder, context.progress, sample.choose, look_inside=look_inside)
    while sample.widen(files):
        files = fetch_files(source, digests, folder, context.progress, sample.choose, look_inside=look_inside)
    splits = {split: sample.cut(split, members) for split, members in _by_split(source, files).items()}
    groups = plan_groups(splits, config.shard_bytes, hold_out=tuple(source.hold_out()))
    names = sorted((part for group in groups for part in group.parts), key=_part_order)
    log.info("%d source files become %d parts", len(files), len(names))
    finished = frozenset(context.finished_parts(names))
    to_do = [
        replace(group, finished=finished.intersection(group.parts))
        for group in groups
        if not finished.issuperset(group.parts)
    ]
    shard = attrgetter("name")
    for_each_shard(context, to_do, WriteShards(context.writer, source), name=shard)
    committed = context.writer.parts()
    parts = [committed[name] for name in names]
    _quarantine(config, context, parts, source.origin)
    if not any(part.counts.get("documents") for part in parts):
        raise InputError(
            "the sources must hold at least one document with text, found none; look into the files that "
            "download.source names, and name others"
        )
    report_splits(context, parts, source.hold_out())
    return [without_quarantine(part) for part in parts]


def _part_order(part: str) -> tuple[int, str]:
    return SPLITS.index(part.partition("-")[0]), part


def _by_split(source: Source[Any], files: list[SourceFile]) -> dict[str, list[SourceFile]]:
    found = {split: [file for file in files if source.split_of(file.name) == split] for split in SPLITS}
    return {split: members for split, members in found.items() if members}


def _quarantine(config: DownloadConfig, context: StageContext, parts: list[Part], origin: str) -> None:
    """Put the bad lines where people find them, also if there are too many."""
    quarantine = Quarantine(context.writer, parts)
    if not quarantine.lines:
        return
    path = context.writer.scratch() / REPORT
    quarantine.write(path)
    stored = context.report_file(REPORT, path)
    place = f"{context.writer.store.url}/{context.writer.folder}/{stored.path}"
    error = quarantine.too_many(config.max_bad_lines, config.max_bad_share, origin, place)
    if error is not None:
        raise error
    log.warning(
        "%d of %d records hold no document and are left out: %s", quarantine.lines, quarantine.records, place
    )
    context.table("Bad lines", quarantine.table())
