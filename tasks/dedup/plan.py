"""The plan of the dedup stage: what goes from each shard, worked out once and kept until all is done."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from storage.artifacts.records import Part, StoredFile
from storage.formats.drops import DROPS
from tasks.core.context import StageContext
from tasks.dedup.config import DedupConfig
from tasks.dedup.corpus import NumberedShard, NumberedShards
from tasks.dedup.drops import REASONS, Names, write_lists
from tasks.dedup.duplicates import EXACT, Duplicates, find_duplicates
from tasks.dedup.indexes import HeldOutIndex, ShingleIndex, containment_index
from tasks.dedup.sketches import FindContained, Sketch, SketchShard, array_names, contained_name
from tasks.executors.local import for_each_shard

PLAN = "drops"
"""Part with the drops of all shards. No manifest names it; the stage discards it."""

HELD_OUT, CONTAINED = "held-out-index", "containment-index"
"""Parts with indexes, discarded too."""

SAMPLES = 50
"""Pairs in the report: evenly spread over all but exact duplicates."""
VALUES = 2000
"""Similarities in the histogram, for each rule."""
GROUPS = 20
"""Largest groups of duplicates in the report."""


@dataclass(frozen=True)
class Plan:
    """The drops of all shards, and what the report says of them."""

    drops: StoredFile
    losing: list[str]
    """The parts that lose any, in order."""
    pairs: list[dict[str, Any]]
    """`value`, `rule`, `kept` and `dropped` as [part, index], with the key of an earlier artifact as a third."""
    values: dict[str, list[float]]
    """Rule -> shares of shingles of some pairs."""
    groups: list[dict[str, Any]]
    compared: int
    cut: int
    similarities: list[int]
    """`Duplicates.similarities`."""


def make_plan(config: DedupConfig, shards: NumberedShards, context: StageContext) -> Plan:
    """Return the plan; the same corpus gives the same one."""
    finished = context.writer.parts()
    done = finished.get(PLAN) or _commit_plan(config, shards, finished, context)
    return Plan(done.files[0], **done.info)


def discard_plan(shards: NumberedShards, context: StageContext) -> None:
    """Remove what only the stage itself needed."""
    names = [shard.shingles.name for shard in shards]
    for name in (*names, *(contained_name(shard.shingles) for shard in shards), HELD_OUT, CONTAINED, PLAN):
        context.writer.discard(name)


def _commit_plan(
    config: DedupConfig, shards: NumberedShards, finished: Mapping[str, Part], context: StageContext
) -> Part:
    sketches = _sketches(config, shards, finished, context)
    scratch = context.writer.scratch() / "plan"
    scratch.mkdir(exist_ok=True)
    pairs = np.empty((0, 2), np.int64)
    if config.min_containment is not None:
        pairs = _maybe_contained(shards, sketches, finished, context)
    documents = shards.documents(sketches, pairs, longest_first=config.longest_first)
    found = find_duplicates(config, documents, scratch, context.workers)
    names = Names(shards, found)
    path = scratch / "drops.parquet"
    write_lists(config, shards, found, names, path)
    part = context.writer.commit(PLAN, {DROPS: path}, info=_told(shards, found, names))
    shutil.rmtree(scratch)
    return part


def _sketches(
    config: DedupConfig, shards: NumberedShards, finished: Mapping[str, Part], context: StageContext
) -> dict[str, Sketch]:
    index = finished.get(HELD_OUT)
    if index is None:
        found = HeldOutIndex.of_documents(list(shards.held_out_shingles()), config.held_out_containment)
        index = _commit_index(HELD_OUT, found, context)
    left = [shard.shingles for shard in shards if shard.shingles.name not in finished]
    work = SketchShard(config, context.writer, index.files)
    for_each_shard(context, left, work, name=attrgetter("name"))
    committed = context.writer.parts() if left else finished
    names = [shard.shingles.name for shard in shards]
    return {name: Sketch(context.writer, committed[name], array_names(config)) for name in names}


def _maybe_contained(
    shards: NumberedShards, sketches: Mapping[str, Sketch], finished: Mapping[str, Part], context: StageContext
) -> npt.NDArray[np.int64]:
    """Return pairs of documents of which the second may stand in the first, for the most part."""
    index = finished.get(CONTAINED)
    if index is None:
        found = [sketches[shard.shingles.name] for shard in shards]
        smallest = np.concatenate([sketch.smallest for sketch in found])
        sizes = np.concatenate([sketch.rows["size"] for sketch in found])
        index = _commit_index(CONTAINED, containment_index(smallest, sizes), context)
    left = [shard.shingles for shard in shards if contained_name(shard.shingles) not in finished]
    for_each_shard(context, left, FindContained(context.writer, index.files), name=attrgetter("name"))
    committed = context.writer.parts()
    pairs = [np.empty((0, 2), np.int64)]
    for shard in shards:
        file = committed[contained_name(shard.shingles)].files[0]
        pairs.append(np.load(context.writer.open(file)) + np.array([shard.begin, 0]))
    return np.concatenate(pairs)


def _commit_index(name: str, index: ShingleIndex, context: StageContext) -> Part:
    folder = context.writer.scratch() / name
    folder.mkdir(exist_ok=True)
    return context.writer.commit(name, index.write_files(folder))


def _told(shards: NumberedShards, found: Duplicates, names: Names) -> dict[str, Any]:
    rules = np.array([REASONS[verdict][0] for verdict in found.verdicts.tolist()], object)
    chosen = _spread(np.flatnonzero(found.verdicts != EXACT), SAMPLES)
    twins, sizes = np.unique(found.twins, return_counts=True)
    largest = np.lexsort((twins, -sizes))[:GROUPS]
    ids, subsets = names.of(twins[largest])
    ends = [shard.begin + shard.rows for shard in shards.own]
    counts = np.diff(np.searchsorted(found.documents, ends), prepend=0)
    return {
        "losing": [shard.part for shard, count in zip(shards.own, counts, strict=True) if count],
        "pairs": [
            {
                "value": round(float(found.shares[place]), 4),
                "rule": rules[place],
                "kept": _place(shards, int(found.twins[place])),
                "dropped": _place(shards, int(found.documents[place])),
            }
            for place in chosen.tolist()
        ],
        "values": {
            rule: np.round(found.shares[_spread(np.flatnonzero(rules == rule), VALUES)], 4).tolist()
            for rule in sorted(set(rules.tolist()) - {"exact", "near"})
        },
        "groups": [
            {"subset": subset, "kept document": name, "documents dropped for it": int(size)}
            for name, subset, size in zip(ids.to_pylist(), subsets.to_pylist(), sizes[largest], strict=True)
        ],
        "compared": found.compared,
        "cut": found.cut,
        "similarities": found.similarities.tolist(),
    }


def _place(shards: NumberedShards, number: int) -> list[Any]:
    shard: NumberedShard = shards.shard_of(number)
    earlier = [] if shard.earlier is None else [shard.earlier.manifest.key]
    return [shard.part, number - shard.begin, *earlier]


def _spread(places: Any, most: int) -> Any:
    return places[np.linspace(0, len(places) - 1, min(most, len(places))).astype(np.int64)]
