"""Runs the dedup stage: finds what to drop, has every shard written anew, and reports."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

from storage.artifacts.records import Part
from storage.artifacts.store import Artifact
from storage.formats.documents import DOCUMENTS
from tasks.core.context import StageContext
from tasks.dedup.config import CONTAMINATION, DedupConfig
from tasks.dedup.drops import DROPS, DropDuplicates, plan_drops
from tasks.executors.local import for_each_shard
from tasks.reports.drop_counts import drop_table


def dedup_corpus(config: DedupConfig, corpus: Artifact, *, context: StageContext) -> list[Part]:
    """Drop all but the first of each group of duplicates, shard by shard."""
    names = [shard.part for shard in corpus.files(DOCUMENTS)]
    finished = context.finished_parts(names)
    plan = plan_drops(config, corpus, context.writer)
    left = [shard for shard in plan.shards if shard.documents.part not in finished]
    for_each_shard(context, left, DropDuplicates(corpus, context.writer), name=attrgetter("documents.part"))
    context.writer.discard(DROPS)
    committed = context.writer.parts()
    parts = [committed[name] for name in names]
    counts = sum((Counter(part.counts) for part in parts), Counter())
    context.table("Duplicates", drop_table(counts))
    context.table("Held-out text found in training text", _contamination_table(counts))
    context.report("duplicate_samples.jsonl", _samples(plan.samples, parts))
    return parts


def _contamination_table(counts: Mapping[str, int]) -> list[dict[str, Any]]:
    rows = []
    for name, documents in sorted(counts.items()):
        if name.startswith(f"{CONTAMINATION}."):
            subset, split, reason = name.removeprefix(f"{CONTAMINATION}.").rsplit(".", 2)
            rows.append({"subset": subset, "held out in": split, "reason": reason, "documents dropped": documents})
    return rows


def _samples(pairs: Sequence[dict[str, Any]], parts: Sequence[Part]) -> bytes:
    heads = {part.part: part.info["heads"] for part in parts}
    lines = [
        {
            "similarity": pair["similarity"],
            **{
                role: {"part": part, **heads[part][str(index)]}
                for role, (part, index) in (("kept", pair["kept"]), ("dropped", pair["dropped"]))
            },
        }
        for pair in pairs
    ]
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
