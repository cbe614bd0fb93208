"""Dedup: documents + signatures -> documents without exact and near duplicates.

Input   corpus      document shards and signature files of `filter`
Output  documents   the kept documents, a shard with the same name for each shard
Reports duplicate_samples.jsonl   some near duplicates beside the document that was kept
Rerun   a finished shard is kept; what to drop is worked out anew, which takes seconds.

Held-out documents win: a training document that is a duplicate of one in test or val is dropped, so the
training text holds nothing that a model is measured on. How duplicates are found: tasks.dedup.clusters.
"""

from storage.registry import LazyFunction
from tasks.core.stage import Stage
from tasks.dedup.config import DedupConfig

STAGE = Stage(
    name="dedup",
    version=1,
    config=DedupConfig,
    build=LazyFunction("tasks.dedup.build:dedup_corpus"),
    inputs={"corpus": "filter"},
    passes="corpus",
    needs_all=True,  # the signatures that filter writes
)
