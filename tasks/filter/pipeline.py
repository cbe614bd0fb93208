"""The datatrove pipeline of the filter stage: read a shard, ask the rules, commit the part.

One task is one shard. The last step writes what the others let through and commits the part when the shard is
complete; on an exception nothing is committed.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterator
from types import TracebackType

from datatrove.data import Document as DatatroveDocument
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.filters.base_filter import BaseFilter

from storage.artifacts.records import StoredFile
from storage.artifacts.store import Artifact
from storage.artifacts.writer import ArtifactWriter
from storage.formats.documents import DOCUMENTS, Document, DocumentWriter, read_documents
from storage.formats.drops import DROPS, DropRow, write_drops
from storage.formats.shingles import SHINGLES, ShingleWriter
from tasks.filter.config import FilterConfig
from tasks.filter.measured import MeasuredValues, is_measured, shares
from tasks.filter.rules.base import judge_document
from tasks.filter.rules.registry import make_rule
from tasks.reports.drop_counts import count_dropped, count_kept

SAMPLES = 3
"""Dropped documents shown per shard and reason: the first ones."""
SAMPLE_CHARACTERS = 400


def filter_pipeline(
    config: FilterConfig, corpus: Artifact, shards: tuple[StoredFile, ...], writer: ArtifactWriter
) -> list[PipelineStep]:
    """Return the steps that filter `shards`, task i the i-th of them."""
    dropped, measured = DroppedDocuments(), MeasuredValues()
    return [
        ReadShard(corpus, shards),
        PolicyFilter(config, dropped, measured),
        CommitPart(config, tuple(shard.part for shard in shards), writer, dropped, measured),
    ]


class ReadShard(PipelineStep):
    """Yields the documents of the task's shard; subset, our own metadata, its place in the shard and whether it is
    to be measured travel in `metadata`."""

    type = "📖 - READER"
    name = "Shard"

    def __init__(self, corpus: Artifact, shards: tuple[StoredFile, ...]) -> None:
        super().__init__()
        self.corpus = corpus
        self.shards = shards
        self.shares = shares([shard.part for shard in corpus.files(DOCUMENTS)])

    def run(self, data: None = None, rank: int = 0, world_size: int = 1) -> Iterator[DatatroveDocument]:
        """Read the shard of `rank`."""
        shard = self.shards[rank]
        for index, document in enumerate(read_documents(self.corpus.open(shard))):
            self.stat_update("documents")
            metadata = {
                "subset": document.subset,
                "meta": document.meta,
                "index": index,
                "is_measured": is_measured(index, self.shares[shard.part]),
            }
            yield DatatroveDocument(document.text, document.id, metadata=metadata)


class PolicyFilter(BaseFilter):
    """Asks the rules of the policy that the document's subset has; the first that says no decides."""

    name = "Policies"

    def __init__(self, config: FilterConfig, dropped: "DroppedDocuments", measured: MeasuredValues) -> None:
        super().__init__(exclusion_writer=dropped)
        self.config = config
        self.measured = measured
        self.rules = {name: [make_rule(rule) for rule in policy.rules] for name, policy in config.policies.items()}

    def filter(self, doc: DatatroveDocument) -> bool | tuple[bool, str]:
        """Decide about one document; its text is then as the rules left it."""
        name = self.config.policy_name(doc.metadata["subset"])
        keep_numbers = self.config.policies[name].keep_numbers
        view, drop, rule = judge_document(self.rules[name], doc.text, keep_numbers=keep_numbers)
        if doc.metadata["is_measured"] and view.characters:
            self.measured.add(self.rules[name], view)
        if drop is not None:
            doc.metadata["drop"] = DropRow(
                doc.id, doc.metadata["subset"], doc.metadata["index"], rule, *dataclasses.astuple(drop)
            )
            return False, drop.reason
        doc.text, doc.metadata["view"] = view.text, view
        return True


class DroppedDocuments:
    """Counts the dropped documents of a shard, remembers why each one goes and keeps the texts of the first ones
    of each reason, as datatrove's exclusion writer."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.rows: list[DropRow] = []
        self.samples: list[dict[str, str | float]] = []
        self._per_reason: Counter[str] = Counter()

    def __enter__(self) -> "DroppedDocuments":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def write(self, document: DatatroveDocument, rank: int) -> None:
        """Take note of a document; the filter has left in the metadata why it goes."""
        row: DropRow = document.metadata["drop"]
        self.rows.append(row)
        count_dropped(self.counts, row.subset, row.reason)
        self._per_reason[row.reason] += 1
        if self._per_reason[row.reason] <= SAMPLES:
            sample = {
                "subset": row.subset,
                "reason": row.reason,
                "id": row.id,
                "text": document.text[:SAMPLE_CHARACTERS],
            }
            numbers = {"value": row.value, "bound": row.bound}
            self.samples.append(sample | {name: number for name, number in numbers.items() if number is not None})


class CommitPart(PipelineStep):
    """Writes documents, shingles and drops of the task's shard and commits them as the part of the same name."""

    type = "💽 - WRITER"
    name = "Part"

    def __init__(
        self,
        config: FilterConfig,
        parts: tuple[str, ...],
        writer: ArtifactWriter,
        dropped: DroppedDocuments,
        measured: MeasuredValues,
    ) -> None:
        super().__init__()
        self.config = config
        self.parts = parts
        self.writer = writer
        self.dropped = dropped
        self.measured = measured

    def run(
        self, data: Iterator[DatatroveDocument], rank: int = 0, world_size: int = 1
    ) -> Iterator[DatatroveDocument]:
        """Write everything, then commit; nothing is passed on."""
        part = self.parts[rank]
        counts: Counter[str] = Counter(documents=0, text_bytes=0, dropped=0)
        paths = {
            DOCUMENTS: self.writer.scratch() / f"{part}.jsonl.zst",
            SHINGLES: self.writer.scratch() / f"{part}.shingles.parquet",
            DROPS: self.writer.scratch() / f"{part}.drops.parquet",
        }
        with (
            DocumentWriter(paths[DOCUMENTS]) as documents,
            ShingleWriter(paths[SHINGLES], self.config.shingles) as shingles,
        ):
            for passed in data:
                with self.track_time():
                    subset, bytes_before = passed.metadata["subset"], documents.text_bytes
                    documents.write(Document(passed.id, subset, passed.text, passed.metadata["meta"]))
                    words = passed.metadata["view"].words
                    shingles.write(
                        passed.id,
                        subset,
                        words.exact_hash(),
                        self.config.policy(subset).near_duplicates,
                        words.shingles(self.config.shingles.words),
                    )
                    count_kept(counts, subset, documents.text_bytes - bytes_before)
        counts.update(self.dropped.counts)
        counts.update(self.config.unknown_subsets(counts))
        write_drops(paths[DROPS], self.dropped.rows)
        info = {"dropped_samples": self.dropped.samples, "measured": self.measured.info()}
        self.writer.commit(part, paths, counts=counts, info=info)
        yield from ()
