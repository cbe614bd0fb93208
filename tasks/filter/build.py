"""Runs the filter stage: every shard by itself, then the reports."""

import json
import logging
from collections import Counter
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from storage.artifacts.records import Part
from storage.artifacts.store import Artifact
from storage.errors import InputError
from storage.formats.documents import DOCUMENTS
from storage.notice import NOTICE
from tasks.core.context import StageContext
from tasks.executors.local import for_each_shard
from tasks.filter.config import UNKNOWN_SUBSET, FilterConfig
from tasks.filter.measured import read_values
from tasks.filter.shards import FilterShard
from tasks.reports.drop_counts import drop_table
from tasks.reports.histograms import Panel, histograms

log = logging.getLogger(__name__)

MOST_SAMPLES = 20
"""Dropped documents shown per subset and reason in the report."""
VALUES = "What rules measure in a sample of all documents; policies drop what is on the shaded side of their bound"


def filter_corpus(config: FilterConfig, corpus: Artifact, *, context: StageContext) -> list[Part]:
    """Keep what the policies keep, shard by shard, and write down what dedup compares.

    Raises: InputError if nothing at all is kept.
    """
    shards = corpus.files(DOCUMENTS)
    finished = context.finished_parts([shard.part for shard in shards])
    left = [shard for shard in shards if shard.part not in finished]
    for_each_shard(context, left, FilterShard(config, corpus, context.writer), name=attrgetter("part"))
    committed = context.writer.parts()
    parts = [committed[shard.part] for shard in shards]
    _report(config, parts, context)
    return parts


def _report(config: FilterConfig, parts: Sequence[Part], context: StageContext) -> None:
    counts = sum((Counter(part.counts) for part in parts), Counter())
    context.table("Dropped", drop_table(counts))
    context.report("dropped_samples.jsonl", _samples(parts))
    if panels := _panels(parts):
        context.report("filter_values.png", histograms(panels, title=VALUES))
    if unknown := config.unknown_subsets(counts):
        names = sorted(name.removeprefix(f"{UNKNOWN_SUBSET}.") for name in unknown)
        log.log(
            NOTICE,
            "filter.subsets does not name %s, so that the policy %r decided about %d documents: %s",
            f"{len(names)} subsets" if len(names) > 1 else "a subset",
            config.default_policy,
            sum(unknown.values()),
            ", ".join(names),
        )
    if counts["dropped"] and not counts["documents"]:
        raise InputError(
            f"filter must keep some documents, but dropped all {counts['dropped']}; "
            f"relax the policies: {drop_table(counts)[-1]['dropped by reason']}"
        )


def _samples(parts: Sequence[Part]) -> bytes:
    shown: Counter[tuple[str, str]] = Counter()
    lines = []
    for part in parts:
        for sample in part.info["dropped_samples"]:
            kind = (sample["subset"], sample["reason"])
            shown[kind] += 1
            if shown[kind] <= MOST_SAMPLES:
                lines.append(json.dumps({"part": part.part, **sample}, ensure_ascii=False) + "\n")
    return "".join(lines).encode()


def _panels(parts: Sequence[Part]) -> list[Panel]:
    """Return a panel for each rule and reason, of all parts together; those of one rule stand side by side."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for part in parts:
        for entry in part.info["measured"]:
            found.setdefault(entry["rule"], {}).setdefault(entry["reason"], []).append(entry)
    return [
        Panel(
            title=f"{rule}: {reason}",
            values=[value for entry in entries for value in read_values(entry)],
            bounds=sorted({bound for entry in entries for bound in entry["bounds"]}),
            is_least=entries[0]["is_least"],
        )
        for rule, reasons in found.items()
        for reason, entries in reasons.items()
    ]
