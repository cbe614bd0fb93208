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
from tasks.dedup.corpus import NumberedShards, earlier_artifacts
from tasks.dedup.drops import DropDuplicates, drop_items
from tasks.dedup.plan import Plan, discard_plan, make_plan
from tasks.executors.local import for_each_shard
from tasks.reports.drop_counts import drop_table
from tasks.reports.histograms import Panel, histograms

STOCK_HASHES = 14 * 8
"""Of a signature in datatrove's default layout, beside which the cost of ours is shown."""


def dedup_corpus(config: DedupConfig, corpus: Artifact, *, context: StageContext) -> list[Part]:
    """Drop all but one of each group of duplicates, and what holds held-out text, shard by shard."""
    names = [shard.part for shard in corpus.files(DOCUMENTS)]
    finished = context.finished_parts(names)
    shards = NumberedShards(corpus, earlier_artifacts(corpus.store, config.against))
    plan = make_plan(config, shards, context)
    items = drop_items(shards, corpus.files(DOCUMENTS), plan.drops, plan.losing, _shown(plan))
    left = [item for item in items if item.documents.part not in finished]
    for_each_shard(context, left, DropDuplicates(corpus, context.writer), name=attrgetter("documents.part"))
    committed = context.writer.parts()
    parts = [committed[name] for name in names]
    _report(config, plan, parts, context)
    discard_plan(shards, context)
    return parts


def _report(config: DedupConfig, plan: Plan, parts: Sequence[Part], context: StageContext) -> None:
    counts = sum((Counter(part.counts) for part in parts), Counter())
    context.table("Duplicates", drop_table(counts))
    context.table("Held-out text found in training text", _contamination_table(counts))
    context.table("Largest groups of duplicates", plan.groups)
    if config.near_duplicates:
        context.table("How near duplicates are found", _comparison_table(config, plan))
    context.report("duplicate_samples.jsonl", _samples(plan.pairs, parts))
    if panels := _panels(config, plan):
        context.report("similarities.png", histograms(panels, of="pairs"))


def _contamination_table(counts: Mapping[str, int]) -> list[dict[str, Any]]:
    rows = []
    for name, documents in sorted(counts.items()):
        if name.startswith(f"{CONTAMINATION}."):
            subset, split, reason = name.removeprefix(f"{CONTAMINATION}.").rsplit(".", 2)
            rows.append({"subset": subset, "held out in": split, "reason": reason, "documents dropped": documents})
    return rows


def _comparison_table(config: DedupConfig, plan: Plan) -> list[dict[str, Any]]:
    """Return the layout, its cost beside stock's, and which pairs it finds."""
    bands = config.bands
    chances = {f"found at {share:.2f}": f"{bands.recall(share):.1%}" for share in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)}
    return [
        {
            "buckets x hashes": f"{bands.buckets} x {bands.hashes}",
            "hashes beside 14 x 8": f"{bands.buckets * bands.hashes / STOCK_HASHES:.2f} times",
            "smallest similarity": config.min_similarity,
            **chances,
            "documents compared": plan.compared,
            "not with all of a bucket": plan.cut,
        }
    ]


def _panels(config: DedupConfig, plan: Plan) -> list[Panel]:
    """Return a panel for the similarity of all pairs that were compared, and one for each other rule."""
    panels = []
    if any(plan.similarities):
        shares = [percent / 100 for percent in range(len(plan.similarities))]
        bounds = [config.min_similarity] if config.near_duplicates else []
        panels.append(
            Panel(
                "shingles in common, of all pairs compared",
                shares,
                bounds,
                is_least=False,
                weights=plan.similarities,
            )
        )
    for rule, values in plan.values.items():
        least = config.min_containment if rule == "contained" else config.held_out_containment
        panels.append(Panel(f"{rule}: share found, of what went", values, [least or 0], is_least=False))
    return panels


def _shown(plan: Plan) -> list[tuple[str, int]]:
    """Return the documents of this corpus of which the report shows the beginning."""
    places = [pair[role] for pair in plan.pairs for role in ("kept", "dropped")]
    return [(place[0], place[1]) for place in places if len(place) == 2]


def _samples(pairs: Sequence[dict[str, Any]], parts: Sequence[Part]) -> bytes:
    heads = {part.part: part.info["heads"] for part in parts}
    lines = []
    for pair in pairs:
        line = {"similarity": pair["value"], "rule": pair["rule"]}
        for role in ("kept", "dropped"):
            part, index, *earlier = pair[role]
            # The text of an earlier artifact is not read again, not even for this.
            line[role] = {"part": part, **(heads[part][str(index)] if not earlier else {"artifact": earlier[0]})}
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    return "".join(lines).encode()
