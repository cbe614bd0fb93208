"""What dedup finds and what it removes by mistake: `python -m benchmarks.dedup_quality FOLDER --json`.

Plants copies of known kinds among documents of a folder that are unlike each other, runs filter (without rules)
and dedup with their defaults, and counts with an exhaustive search that shares no code with them. Then with the
threshold at 0.35, with containment asked for, and the curve: pairs 0.05 above and 0.05 below each threshold. The
same seed plants the same.

FOLDER has `.jsonl` or `.jsonl.zst` files with a field `text`.
"""

import argparse
import json
import random
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.exhaustive import Index
from benchmarks.filter_dedup import everything, opened, publish, run_stages
from benchmarks.planted import Planted, pairs_of_similarity, plant, unlike
from storage.artifacts.store import Store
from storage.artifacts.writer import ArtifactWriter
from storage.formats.documents import DOCUMENTS, TRAIN, VAL, DocumentWriter, read_documents
from tasks.dedup.config import ABOVE, DedupConfig

LEAK = 0.8
"""A held-out document leaks if this share of its n-grams stands in a training document."""
THRESHOLDS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def main() -> None:
    """Plant, run, count and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", action="store_true", help="print JSON (the only form there is)")
    parser.add_argument("--of-each", type=int, default=100, help="copies of each kind")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    planted = plant(options.folder, options.of_each, random.Random(options.seed))
    index = Index([*planted.train, *planted.val])
    default = judged(planted, index, DedupConfig())
    lower = judged(planted, index, DedupConfig(min_similarity=0.35))
    asked = judged(planted, index, DedupConfig(min_containment=0.8))
    found = {
        **default,
        "recall_10_at_035": lower["recall_10"],
        "false_removals_at_035": lower["false_removals"],
        "validation_leak_at_035": lower["validation_leak"],
        "recall_containment": asked["recall_containment"],
        "false_removals_with_containment": asked["false_removals"],
        "curve": curve(options.folder, 4 * options.of_each),
        "config": {**DedupConfig().model_dump(), "bands": DedupConfig().bands},
    }
    print(json.dumps(found, indent=1))


def judged(planted: Planted, index: Index, config: DedupConfig) -> dict[str, Any]:
    """Run both stages and return the shares that are judged."""
    train, val = run(planted, config)
    removed = {document.id for document in planted.train} - train
    for_held_out = {name for name in removed if index.holds(name, val) >= LEAK}
    containment = config.min_containment or 2
    false = [
        name
        for name in removed - for_held_out
        if index.similarity(name, train | val) < config.min_similarity
        and index.containment(name, train | val) < containment
    ]
    recall = {
        f"recall_{kind}": round(sum(not {*pair} <= train for pair in pairs) / len(pairs), 4)
        for kind, pairs in planted.pairs.items()
        if not kind.startswith("held-out")
    }
    twins = [twin for kind, pairs in planted.pairs.items() if kind.startswith("held-out") for _, twin in pairs]
    chains = [document.id for document in planted.train if "chain" in document.id]
    return {
        **recall,
        "false_removals": round(len(false) / len(planted.train), 5),
        "validation_leak": sum(index.containment(twin, train) >= LEAK for twin in twins if twin in val),
        "validation_twins": len(twins),
        "chain_documents": len(chains),
        "chain_documents_kept": len({*chains} & train),
        "documents": len(planted.train) + len(planted.val),
        "removed": len(removed),
        "removed_for_held_out_text": len(for_held_out),
    }


def curve(folder: Path, of_each: int) -> list[dict[str, float]]:
    """Return which pairs are found whose similarity is just above, and just below, each threshold."""
    bases = unlike(folder, of_each)
    rows = []
    for threshold in THRESHOLDS:
        shares = {}
        for name, similarity in (("above", threshold + ABOVE), ("below", threshold - ABOVE)):
            planted = pairs_of_similarity(bases, similarity)
            kept, _ = run(planted, DedupConfig(min_similarity=threshold))
            shares[f"found_005_{name}"] = sum(not {*pair} <= kept for pair in planted.pairs["curve"]) / of_each
        bands = DedupConfig(min_similarity=threshold).bands
        rows.append({"threshold": threshold, **shares, "buckets": bands.buckets, "hashes": bands.hashes})
    return rows


def run(planted: Planted, config: DedupConfig) -> tuple[set[str], set[str]]:
    """Return the ids of the training and of the held-out documents that filter and dedup keep."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        writer = ArtifactWriter(store, "download", "0" * 16)
        parts = []
        for split, documents in ((TRAIN, planted.train), (VAL, planted.val)):
            path = writer.scratch() / f"{split}.jsonl.zst"
            with DocumentWriter(path) as shard:
                for document in documents:
                    shard.write(document)
            parts.append(writer.commit(f"{split}-00000", {DOCUMENTS: path}, counts=shard.counts()))
        publish(writer, parts)
        run_stages(store, everything(), config)
        artifact = opened(store, "dedup")
        kept = {
            file.part.partition("-")[0]: {document.id for document in read_documents(artifact.open(file))}
            for file in artifact.files(DOCUMENTS)
        }
    return kept[TRAIN], kept[VAL]


if __name__ == "__main__":
    main()
