"""Dedup: documents + signatures -> documents without exact and near duplicates.

Input   corpus      document shards and signature files of `filter`
Output  documents   the kept documents, a shard with the same name for each shard
Reports duplicate_samples.jsonl   some near duplicates beside the document that was kept
Rerun   a finished shard is kept; what to drop is worked out anew, which takes seconds.

Held-out documents win: a training document that is a duplicate of one in test or val is dropped, so the
training text holds nothing that a model is measured on. How duplicates are found: tasks.dedup.clusters.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from storage.artifacts.records import Part
from storage.artifacts.store import Artifact
from storage.formats.documents import DOCUMENTS
from tasks.core.context import StageContext
from tasks.core.stage import Stage
from tasks.dedup.config import CONTAMINATION, DedupConfig
from tasks.reports.drop_counts import drop_table


def dedup_corpus(config: DedupConfig, corpus: Artifact, *, context: StageContext) -> list[Part]:
    """Drop all but the first of each group of duplicates, shard by shard."""
    # scipy and datatrove take a second to import, and `pile plan` needs only the config.
    from tasks.dedup.drops import DropDuplicates, plan_drops  # noqa: PLC0415
    from tasks.executors.local import for_each_shard  # noqa: PLC0415

    names = [shard.part for shard in corpus.files(DOCUMENTS)]
    finished = context.finished_parts(names)
    plan = plan_drops(config, corpus, context.writer.scratch() / "drops")
    left = [shard for shard in plan.shards if shard.documents.part not in finished]
    for_each_shard(context, left, DropDuplicates(corpus, context.writer))
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


STAGE = Stage(
    name="dedup",
    version=1,
    config=DedupConfig,
    build=dedup_corpus,
    inputs={"corpus": "filter"},
    passes="corpus",
    needs_all=True,  # the signatures that filter writes
)
