"""Dedup: documents + shingles -> documents without exact and near duplicates.

Input   corpus      document shards and shingle files of `filter`
Output  documents   the kept documents, a shard with the same name for each shard
        drops       a row for each document that goes: rule, twin, similarity (storage.formats.drops)
Reports duplicate_samples.jsonl   some documents that went beside the one that was kept
        similarities.png          how much the pairs that were compared have in common, beside the threshold
Rerun   sketches of shards, the list of drops and finished shards are kept.

Held-out documents win: a training document that is a duplicate of one in test or val is dropped, so the
training text holds nothing that a model is measured on. How duplicates are found: tasks.dedup.duplicates.
"""

from storage.registry import LazyFunction
from tasks.core.stage import Stage
from tasks.dedup.config import DedupConfig

STAGE = Stage(
    name="dedup",
    # 2: compares the shingles themselves, and drops what holds held-out text.
    version=2,
    config=DedupConfig,
    build=LazyFunction("tasks.dedup.build:dedup_corpus"),
    inputs={"corpus": "filter"},
    passes="corpus",
    needs_all=True,  # the shingles that filter writes
)
