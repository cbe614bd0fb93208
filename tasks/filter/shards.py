"""What the filter stage does with one shard: reads it once, asks the rules, writes down what dedup compares."""

from collections import Counter
from typing import Any, NamedTuple

from storage.artifacts.records import StoredFile
from storage.artifacts.store import Artifact
from storage.artifacts.writer import ArtifactWriter
from storage.formats.documents import DOCUMENTS, Document, DocumentWriter, read_documents
from storage.formats.drops import DROPS, DropRow, write_drops
from storage.formats.shingles import SHINGLES, ShingleWriter
from tasks.filter.config import FilterConfig
from tasks.filter.measured import MeasuredValues, is_measured, shares
from tasks.filter.policies import Policy
from tasks.filter.rules.base import Drop, Rule, judge_document
from tasks.filter.rules.registry import make_rule
from tasks.reports.drop_counts import count_dropped, count_kept

SAMPLES = 3
"""Dropped documents shown per shard and reason: the first ones."""
SAMPLE_CHARACTERS = 400

FILES = {DOCUMENTS: ".jsonl.zst", SHINGLES: ".shingles.parquet", DROPS: ".drops.parquet"}
"""Role -> how the name of its file in a part ends."""


class _Judges(NamedTuple):
    """Who decides about the documents of a subset."""

    policy: Policy
    rules: list[Rule[Any]]


class FilterShard:
    """Writes what the policies keep of a shard and commits it as the part of the same name.

    On an exception nothing is committed. It can be pickled: workers have a copy each.
    """

    def __init__(self, config: FilterConfig, corpus: Artifact, writer: ArtifactWriter) -> None:
        self.config = config
        self.corpus = corpus
        self.writer = writer
        self._judges = {
            name: _Judges(policy, [make_rule(rule) for rule in policy.rules])
            for name, policy in config.policies.items()
        }
        self._shares = shares([shard.part for shard in corpus.files(DOCUMENTS)])

    def __call__(self, shard: StoredFile) -> None:
        """Do one shard."""
        dropped, measured = DroppedDocuments(), MeasuredValues()
        share = self._shares[shard.part]
        counts: Counter[str] = Counter(documents=0, text_bytes=0, dropped=0)
        paths = {role: self.writer.scratch() / f"{shard.part}{end}" for role, end in FILES.items()}
        with (
            DocumentWriter(paths[DOCUMENTS]) as documents,
            ShingleWriter(paths[SHINGLES], self.config.shingles) as shingles,
        ):
            for index, document in enumerate(read_documents(self.corpus.open(shard))):
                subset = document.subset
                policy, rules = self._judges[self.config.policy_name(subset)]
                view, drop, rule = judge_document(rules, document.text, keep_numbers=policy.keep_numbers)
                if is_measured(index, share) and view.characters:
                    measured.add(rules, view)
                if drop is not None:
                    dropped.add(document, index, rule, drop)
                    continue
                bytes_before = documents.text_bytes
                documents.write(Document(document.id, subset, view.text, document.meta))
                count_kept(counts, subset, documents.text_bytes - bytes_before)
                words, size = view.words, self.config.shingles.words
                shingles.write(
                    document.id, subset, words.exact_hash(), policy.near_duplicates, words.shingles(size)
                )
        counts.update(dropped.counts)
        counts.update(self.config.unknown_subsets(counts))
        write_drops(paths[DROPS], dropped.rows)
        info = {"dropped_samples": dropped.samples, "measured": measured.info()}
        self.writer.commit(shard.part, paths, counts=counts, info=info)


class DroppedDocuments:
    """Counts the dropped documents of a shard, remembers why each one goes and keeps the texts of the first ones
    of each reason."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.rows: list[DropRow] = []
        self.samples: list[dict[str, str | float]] = []
        self._per_reason: Counter[str] = Counter()

    def add(self, document: Document, index: int, rule: str, drop: Drop) -> None:
        """Take note of the document at a place of the shard."""
        subset, reason = document.subset, drop.reason
        self.rows.append(DropRow(document.id, subset, index, rule, reason, drop.value, drop.bound))
        count_dropped(self.counts, subset, reason)
        self._per_reason[reason] += 1
        if self._per_reason[reason] <= SAMPLES:
            sample = {"subset": subset, "reason": reason, "id": document.id}
            numbers = {"value": drop.value, "bound": drop.bound}
            found = {name: number for name, number in numbers.items() if number is not None}
            self.samples.append({**sample, "text": document.text[:SAMPLE_CHARACTERS], **found})
