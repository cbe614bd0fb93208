"""What the dedup stage does with the duplicates it found: a list of drops per shard, then new shards."""

import shutil
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from storage.artifacts.records import StoredFile
from storage.artifacts.store import Artifact
from storage.artifacts.writer import ArtifactWriter
from storage.errors import CorruptFileError, InputError
from storage.formats.documents import DOCUMENTS, TEST, TRAIN, VAL, DocumentWriter, read_documents
from storage.formats.signatures import SIGNATURES
from tasks.dedup.clusters import CorpusSignatures, Duplicates, Numbers, find_duplicates
from tasks.dedup.config import CONTAMINATION, DedupConfig
from tasks.reports.drop_counts import count_dropped, count_kept

PRECEDENCE = (TEST, VAL, TRAIN)
"""Of duplicates the one of the earlier split is kept."""

EXACT, NEAR = "exact-duplicate", "near-duplicate"

SAMPLES = 50
"""Near duplicates in the report: evenly spread over all of them."""
SAMPLE_CHARACTERS = 400

DROPS = "drops"
"""Part with the lists of all shards, roles named after them. No manifest names it; the stage discards it."""

DROP = np.dtype([("index", np.int64), ("is_near", np.bool_), ("kept_split", np.uint8)])


@dataclass(frozen=True)
class ShardDrops:
    """What to do with one shard. Its lists lie in the store: every worker, on whatever host, is sent all items."""

    documents: StoredFile
    rows: int
    """Documents that the shard must have: as many as signatures."""
    lists: StoredFile
    """File of the part DROPS with two numpy arrays: `drops` of DROP, by rising index, and `heads`, offsets of the
    documents of which the report shows the beginning."""


@dataclass(frozen=True)
class DropPlan:
    """All shards, and the pairs for the report: `similarity`, `kept` and `dropped` as (part, index)."""

    shards: list[ShardDrops]
    samples: list[dict[str, Any]]


def plan_drops(config: DedupConfig, corpus: Artifact, writer: ArtifactWriter) -> DropPlan:
    """Find the duplicates of a corpus and commit a list of drops for each shard, as the part DROPS.

    The same corpus gives the same plan. Raises: CorruptFileError if signatures do not fit together.
    """
    scratch = writer.scratch() / "drops"
    scratch.mkdir(exist_ok=True)
    shards = sorted(corpus.files(DOCUMENTS), key=lambda shard: (_precedence(shard.part), shard.part))
    signature_files = {file.part: file for file in corpus.files(SIGNATURES)}
    signature_paths = [corpus.open(signature_files[shard.part]) for shard in shards]
    signatures = CorpusSignatures(signature_paths, scratch / "signatures")
    found = find_duplicates(signatures, near=config.near_duplicates, min_similarity=config.min_similarity)
    shutil.rmtree(scratch / "signatures")

    offsets = _ShardOffsets([shard.part for shard in shards], signatures.rows)
    samples = _sampled(found)
    pairs = [
        {
            "similarity": round(float(found.similarity[sample]), 4),
            "kept": offsets.name(found.kept[sample]),
            "dropped": offsets.name(found.documents[sample]),
        }
        for sample in samples
    ]
    shown = np.unique(np.concatenate((found.documents[samples], found.kept[samples])))
    paths = {}
    for number, shard in enumerate(shards):
        paths[shard.part] = scratch / f"{shard.part}.npz"
        heads = shown[offsets.of_shard(shown, number)] - offsets.begins[number]
        np.savez(paths[shard.part], drops=_shard_drops(found, offsets, number), heads=heads)
    lists = {file.role: file for file in writer.commit(DROPS, paths).files}
    items = [
        ShardDrops(shard, rows, lists[shard.part]) for shard, rows in zip(shards, signatures.rows, strict=True)
    ]
    return DropPlan(items, pairs)


class _ShardOffsets:
    """Translates between the number of a document in the corpus and its place in a shard."""

    def __init__(self, parts: list[str], rows: list[int]) -> None:
        self.parts = parts
        self.precedence = np.array([_precedence(part) for part in parts], np.uint8)
        self.begins: Numbers = np.cumsum([0, *rows], dtype=np.int64)

    def shard_of(self, documents: npt.ArrayLike) -> npt.NDArray[np.intp]:
        return np.searchsorted(self.begins, documents, side="right") - 1

    def of_shard(self, documents: Numbers, shard: int) -> slice:
        """Return which of the documents, sorted by number, lie in a shard."""
        return slice(*np.searchsorted(documents, self.begins[shard : shard + 2]))

    def name(self, document: np.int64) -> tuple[str, int]:
        shard = int(self.shard_of(document))
        return self.parts[shard], int(document - self.begins[shard])


def _shard_drops(found: Duplicates, offsets: _ShardOffsets, shard: int) -> npt.NDArray[np.void]:
    selected = offsets.of_shard(found.documents, shard)
    drops = np.empty(selected.stop - selected.start, DROP)
    drops["index"] = found.documents[selected] - offsets.begins[shard]
    drops["is_near"] = found.is_near[selected]
    drops["kept_split"] = offsets.precedence[offsets.shard_of(found.kept[selected])]
    return drops


@dataclass(frozen=True)
class DropDuplicates:
    """Writes a shard without the documents of its list and commits it as the part of the same name."""

    corpus: Artifact
    writer: ArtifactWriter

    def __call__(self, shard: ShardDrops) -> None:
        """Do one shard. Raises: CorruptFileError if it has another number of documents than signatures."""
        part = shard.documents.part
        with np.load(self.writer.open(shard.lists)) as lists:
            drops = {int(drop["index"]): drop for drop in lists["drops"]}
            heads = set(lists["heads"].tolist())
        shown = {}
        counts: Counter[str] = Counter(documents=0, text_bytes=0, dropped=0)
        path = self.writer.scratch() / f"{part}.jsonl.zst"
        index = -1
        with DocumentWriter(path) as kept:
            for index, document in enumerate(read_documents(self.corpus.open(shard.documents))):
                if index in heads:
                    shown[str(index)] = {"id": document.id, "text": document.text[:SAMPLE_CHARACTERS]}
                if index in drops:
                    _count_drop(counts, part, document.subset, drops[index])
                    continue
                bytes_before = kept.text_bytes
                kept.write(document)
                count_kept(counts, document.subset, kept.text_bytes - bytes_before)
        if index + 1 != shard.rows:
            raise CorruptFileError(
                f"{self.corpus.url}/{shard.documents.path} must have a document for each of its {shard.rows} "
                f"signatures, found {index + 1}; rebuild both with `pile run RECIPE --force filter`"
            )
        self.writer.commit(part, {DOCUMENTS: path}, counts=counts, info={"heads": shown})


def _count_drop(counts: Counter[str], part: str, subset: str, drop: np.void) -> None:
    reason = NEAR if drop["is_near"] else EXACT
    count_dropped(counts, subset, reason)
    held_out = PRECEDENCE[drop["kept_split"]]
    if PRECEDENCE[_precedence(part)] == TRAIN and held_out != TRAIN:
        counts[f"{CONTAMINATION}.{subset}.{held_out}.{reason}"] += 1


def _precedence(part: str) -> int:
    split = part.partition("-")[0]
    if split not in PRECEDENCE:
        raise InputError(f"document shards must be called train-, val- or test- and a number, found {part!r}")
    return PRECEDENCE.index(split)


def _sampled(found: Duplicates) -> list[int]:
    near = np.flatnonzero(found.is_near)
    chosen = np.linspace(0, len(near) - 1, min(SAMPLES, len(near))).astype(np.int64)
    return [int(number) for number in near[chosen]]
