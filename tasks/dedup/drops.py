"""What the dedup stage does with the duplicates it found: a list of drops per shard, then new shards."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage.artifacts.records import StoredFile
from storage.artifacts.store import Artifact
from storage.artifacts.writer import ArtifactWriter
from storage.errors import CorruptFileError
from storage.formats.documents import DOCUMENTS, TRAIN, DocumentWriter, read_documents
from storage.formats.drops import DROPS, SCHEMA, DropRow, as_rows, read_group, write_table
from tasks.dedup.config import CONTAMINATION, DedupConfig
from tasks.dedup.corpus import PRECEDENCE, NumberedShard, NumberedShards, split_precedence
from tasks.dedup.deciding import CONTAINED, FOUND_IN_TRAIN, HOLDS_HELD_OUT, NEAR
from tasks.dedup.duplicates import EXACT, Duplicates
from tasks.dedup.links import Numbers
from tasks.reports.drop_counts import count_dropped, count_kept

REASONS = {
    EXACT: ("exact", "exact-duplicate"),
    NEAR: ("near", "near-duplicate"),
    CONTAINED: ("contained", "contained"),
    HOLDS_HELD_OUT: ("held-out", "holds-held-out-text"),
    FOUND_IN_TRAIN: ("held-out", "found-in-training-text"),
}
"""Verdict -> the rule and the reason in drop files."""

SAMPLE_CHARACTERS = 400


@dataclass(frozen=True)
class ShardDrops:
    """What to do with one shard. Its list lies in the store: every worker, on whatever host, is sent all items."""

    documents: StoredFile
    rows: int
    """Documents that the shard must have: as many as rows of shingles."""
    drops: StoredFile
    """The drop file of all shards."""
    group: int
    """Its row group for this shard; -1 if nothing goes from it."""
    heads: tuple[int, ...]
    """Documents of which the report shows the beginning."""


@dataclass(frozen=True)
class DropDuplicates:
    """Writes a shard without the documents of its list and commits both as the part of the same name."""

    corpus: Artifact
    writer: ArtifactWriter

    def __call__(self, shard: ShardDrops) -> None:
        """Do one shard. Raises: CorruptFileError if it has another number of documents than rows of shingles."""
        part = shard.documents.part
        table = read_group(self.writer.open(shard.drops), shard.group)
        drops = {row.index: row for row in as_rows(table)}
        counts: Counter[str] = Counter(documents=0, text_bytes=0, dropped=0)
        heads = {}
        paths = {role: self.writer.scratch() / f"{part}{end}" for role, end in FILES.items()}
        index = -1
        with DocumentWriter(paths[DOCUMENTS]) as kept:
            for index, document in enumerate(read_documents(self.corpus.open(shard.documents))):
                if index in shard.heads:
                    heads[str(index)] = {"id": document.id, "text": document.text[:SAMPLE_CHARACTERS]}
                if index in drops:
                    _count_drop(counts, part, drops[index])
                    continue
                bytes_before = kept.text_bytes
                kept.write(document)
                count_kept(counts, document.subset, kept.text_bytes - bytes_before)
        if index + 1 != shard.rows:
            raise CorruptFileError(
                f"{self.corpus.url}/{shard.documents.path} must have a document for each of its {shard.rows} rows "
                f"of shingles, found {index + 1}; rebuild both with `pile run RECIPE --force filter`"
            )
        write_table(paths[DROPS], table)
        self.writer.commit(part, paths, counts=counts, info={"heads": heads})


FILES = {DOCUMENTS: ".jsonl.zst", DROPS: "-drops.parquet"}
"""Role -> how its file in a part of the result is called."""


def _count_drop(counts: Counter[str], part: str, drop: DropRow) -> None:
    count_dropped(counts, drop.subset, drop.reason)
    twin_split = PRECEDENCE[split_precedence(drop.twin_part or part)]
    if part.startswith(TRAIN) and twin_split != TRAIN:
        counts[f"{CONTAMINATION}.{drop.subset}.{twin_split}.{drop.reason}"] += 1


def write_lists(
    config: DedupConfig, shards: NumberedShards, found: Duplicates, names: "Names", path: Path
) -> None:
    """Write the drops of all shards of this corpus into one file, a row group for each that loses any."""
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for shard in shards.own:
            begin, end = np.searchsorted(found.documents, (shard.begin, shard.begin + shard.rows))
            if begin < end:
                rows = slice(int(begin), int(end))
                writer.write_table(_list(config, found, rows, shard, names), row_group_size=end - begin)


def _list(config: DedupConfig, found: Duplicates, chosen: slice, shard: NumberedShard, names: "Names") -> pa.Table:
    verdicts = found.verdicts[chosen]
    bounds = {NEAR: config.min_similarity, CONTAINED: config.min_containment}
    ids, subsets = names.of(found.documents[chosen])
    twin_ids, _ = names.of(found.twins[chosen])
    twins = [names.shards.shard_of(int(twin)) for twin in found.twins[chosen]]
    columns = {
        "id": ids,
        "subset": subsets,
        "index": found.documents[chosen] - shard.begin,
        "rule": [REASONS[verdict][0] for verdict in verdicts.tolist()],
        "reason": [REASONS[verdict][1] for verdict in verdicts.tolist()],
        "value": np.round(found.shares[chosen], 6),
        "bound": [
            None if verdict == EXACT else bounds.get(verdict, config.held_out_containment)
            for verdict in verdicts.tolist()
        ],
        "twin_id": twin_ids,
        "twin_part": [twin.part for twin in twins],
        "twin_index": found.twins[chosen] - np.array([twin.begin for twin in twins], np.int64),
        "twin_artifact": ["" if twin.earlier is None else twin.earlier.manifest.key for twin in twins],
    }
    return pa.table([pa.array(columns[field.name], field.type) for field in SCHEMA], schema=SCHEMA)


class Names:
    """Ids and subsets of the documents that go and of those that stand for them: the text of names, once."""

    def __init__(self, shards: NumberedShards, found: Duplicates) -> None:
        self.shards = shards
        self._numbers = np.unique(np.concatenate((found.documents, found.twins)))
        ids, subsets = [pa.array([], pa.large_string())], [pa.array([], pa.large_string())]  # may be over 2 GB
        for shard in shards:
            rows = shards.within(shard, self._numbers)
            if len(rows):
                path = shard.shingles.corpus.open(shard.shingles.file)
                names = pq.read_table(path, columns=["id", "subset"]).take(rows)
                ids += names.column("id").cast(pa.large_string()).chunks
                subsets += names.column("subset").cast(pa.large_string()).chunks
        # In one piece: `take` would put chunks together for each shard anew.
        self._ids, self._subsets = pa.concat_arrays(ids), pa.concat_arrays(subsets)

    def of(self, numbers: Numbers) -> tuple[pa.Array, pa.Array]:
        """Return ids and subsets."""
        places = pa.array(np.searchsorted(self._numbers, numbers))
        return pc.take(self._ids, places).cast(pa.string()), pc.take(self._subsets, places).cast(pa.string())


def drop_items(
    shards: NumberedShards,
    documents: Sequence[StoredFile],
    drops: StoredFile,
    losing: Sequence[str],
    shown: Collection[tuple[str, int]],
) -> list[ShardDrops]:
    """Return the work that is to be done on each shard; `losing` are the parts that lose any, in order."""
    files = {file.part: file for file in documents}
    groups = {part: number for number, part in enumerate(losing)}
    return [
        ShardDrops(
            files[shard.part],
            shard.rows,
            drops,
            groups.get(shard.part, -1),
            tuple(sorted({row for part, row in shown if part == shard.part})),
        )
        for shard in shards.own
    ]
