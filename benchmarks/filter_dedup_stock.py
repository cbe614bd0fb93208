"""The stock side of `benchmarks.filter_dedup`: datatrove's own blocks, run by a Python that has
filter_dedup_stock.txt installed. Prints JSON.

    python benchmarks/filter_dedup_stock.py INPUT_FOLDER WORK_FOLDER whitespace|spacy [SEED]
"""

import json
import resource
import struct
import sys
import time
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import (
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.filters import FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.text import split_into_words
from stock_words import WhitespaceTokenizer


def main() -> None:
    """Run both stages and print what they cost and kept."""
    source, work, words = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    language = WhitespaceTokenizer() if words == "whitespace" else "eng"
    if words == "spacy":
        split_into_words("spaCy is loaded before the clock starts", language)
    shards = len(list(source.glob("*.jsonl.zst")))
    config, cost = MinhashConfig(seed=int(sys.argv[4]) if len(sys.argv) > 4 else 1), {}

    def run(stage: str, tasks: int, *pipeline: object) -> None:
        began = time.process_time()
        LocalPipelineExecutor(list(pipeline), tasks=tasks, workers=1, logging_dir=str(work / "logs" / stage)).run()
        cost[stage] = time.process_time() - began

    def reader(folder: Path) -> JsonlReader:
        return JsonlReader(str(folder), glob_pattern="*.jsonl.zst")

    def writer(name: str) -> JsonlWriter:
        return JsonlWriter(str(work / name), output_filename="${rank}.jsonl.zst", compression="zstd")

    blocks = (GopherQualityFilter, GopherRepetitionFilter, FineWebQualityFilter)
    filters = [block(language=language) for block in blocks]
    run("filter", shards, reader(source), *filters, writer("filtered"))
    filtered, signatures, buckets, removed = (
        work / name for name in ("filtered", "signatures", "buckets", "remove")
    )
    run("sign", shards, reader(filtered), MinhashDedupSignature(str(signatures), config=config, language=language))
    run("buckets", config.num_buckets, MinhashDedupBuckets(str(signatures), str(buckets), config=config))
    run("cluster", 1, MinhashDedupCluster(str(buckets), str(removed), config=config, save_cluster_id=True))
    run("write", shards, reader(filtered), MinhashDedupFilter(str(removed)), writer("kept"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        json.dumps(
            {
                "cpu_seconds": cost,
                "peak_rss_mb": peak,
                "filtered": [document.id for document in reader(filtered).run()],
                "filtered_by_shard": [
                    [document.id for document in JsonlReader(str(path)).run()]
                    for path in sorted(filtered.glob("*.jsonl.zst"))
                ],
                "kept": [document.id for document in reader(work / "kept").run()],
                "repeats": repeats(filtered, removed),
            }
        )
    )


def repeats(filtered: Path, removed: Path) -> list[str]:
    """Return the ids of all documents but the first one of each cluster."""
    found, seen = [], set()
    for rank, path in enumerate(sorted(filtered.glob("*.jsonl.zst"))):
        clusters = removed / f"{rank:06d}.clusters"
        of = dict(struct.iter_unpack("<2I", clusters.read_bytes())) if clusters.exists() else {}
        for index, document in enumerate(JsonlReader(str(path)).run()):
            if index in of:
                found += [document.id] if of[index] in seen else []
                seen.add(of[index])
    return found


if __name__ == "__main__":
    main()
