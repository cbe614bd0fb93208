"""Dedup: documents + signatures -> documents without exact and near duplicates.

Input   corpus      document shards and signature files of `filter`
Output  documents   the kept documents, a shard with the same name for each shard
Reports duplicate_samples.jsonl   some near duplicates beside the document that was kept
Rerun   a finished shard is kept; what to drop is worked out anew, which takes seconds.

Held-out documents win: a training document that is a duplicate of one in test or val is dropped, so the
training text holds nothing that a model is measured on. How duplicates are found: tasks.duplicate_clusters.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

from pydantic import Field

from storage.config import Config
from storage.formats import DOCUMENTS
from storage.records import Part
from storage.store import Artifact
from tasks.build import Build
from tasks.drop_counts import drop_table
from tasks.stage import Stage

CONTAMINATION = "contamination"
"""Count `contamination.<subset>.<split>.<reason>`: training documents dropped for one held out in `split`."""


class DedupConfig(Config):
    """What counts as a duplicate. How signatures are made is decided by `filter`."""

    near_duplicates: bool = True
    """Also drop near duplicates; exact ones (white space around the text aside) are dropped always."""
    min_similarity: float = Field(default=0.7, ge=0, le=1)
    """Smallest share of equal signature positions, an estimate of the Jaccard similarity of the word n-grams,
    between a dropped document and the kept one; 0 trusts every candidate pair."""


def dedup_corpus(config: DedupConfig, corpus: Artifact, *, build: Build) -> list[Part]:
    """Drop all but the first of each group of duplicates, shard by shard."""
    # scipy and datatrove take a second to import, and `pile plan` needs only the config.
    from tasks.duplicate_drops import DropDuplicates, plan_drops  # noqa: PLC0415
    from tasks.shards import for_each_shard  # noqa: PLC0415

    names = [shard.part for shard in corpus.files(DOCUMENTS)]
    finished = build.finished_parts(names)
    plan = plan_drops(config, corpus, build.writer.scratch() / "drops")
    left = [shard for shard in plan.shards if shard.documents.part not in finished]
    for_each_shard(build, left, DropDuplicates(corpus, build.writer), name=attrgetter("documents.part"))
    committed = build.writer.parts()
    parts = [committed[name] for name in names]
    counts = sum((Counter(part.counts) for part in parts), Counter())
    build.table("Duplicates", drop_table(counts))
    build.table("Held-out text found in training text", _contamination_table(counts))
    build.report("duplicate_samples.jsonl", _samples(plan.samples, parts))
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


STAGE = Stage(name="dedup", version=1, config=DedupConfig, build=dedup_corpus, inputs={"corpus": "filter"})
