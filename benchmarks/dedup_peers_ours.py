"""Our sides of `benchmarks.dedup_peers`: the two stages as they come, and what they do without any files."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.dedup_peers_run import Clock
from benchmarks.filter_dedup import everything, kept_ids, make_corpus, opened, run_stages
from storage.artifacts.store import Store
from storage.formats.documents import Document
from storage.formats.shingles import Hashes32, ShingleRows
from tasks.dedup.config import DedupConfig
from tasks.dedup.duplicates import Documents, find_duplicates
from tasks.dedup.links import Numbers
from tasks.dedup.signatures import Signer
from tasks.filter.words import DocumentWords


def with_files(folder: Path, megabytes: float) -> dict[str, Any]:
    """Run filter without rules and dedup as they come, from shards to shards."""
    with tempfile.TemporaryDirectory() as work:
        make_corpus(folder, Path(work), megabytes)
        store = Store(str(Path(work) / "store"))
        cost = run_stages(store, everything(), DedupConfig())
        kept = [int(name.removeprefix("d")) for name in kept_ids(opened(store, "dedup"))]
    return {"cpu_seconds": cost, "kept": kept}


def in_memory(documents: Sequence[Document]) -> dict[str, Any]:
    """Do what both stages do between reading and writing: from texts in a list to the numbers of those to keep."""
    config, clock = DedupConfig(), Clock()
    with clock.part("shingles"):
        words = [DocumentWords(document.text) for document in documents]
        exact = np.array([np.frombuffer(each.exact_hash(), "<u8") for each in words], np.uint64)
        shingles = [each.shingles(5) for each in words]
    with clock.part("duplicates"), tempfile.TemporaryDirectory() as scratch:
        found = find_duplicates(config, as_documents(config, exact, shingles), Path(scratch), threads=1)
    gone = set(found.documents.tolist())
    return {"cpu_seconds": clock.cost, "kept": [n for n in range(len(documents)) if n not in gone]}


def as_documents(config: DedupConfig, exact: Any, shingles: list[Hashes32]) -> Documents:
    """Return documents of one split, signed."""
    sizes = np.array([len(each) for each in shingles], np.uint32)
    near = sizes > 0
    ends = np.cumsum([0, *sizes.tolist()], dtype=np.int64)
    rows = ShingleRows(exact, near, ends, np.concatenate([np.empty(0, np.uint32), *shingles]))
    buckets = Signer(config.bands, config.seed).buckets(rows, near)

    def some(numbers: Numbers) -> Iterator[tuple[Numbers, list[Hashes32]]]:
        yield numbers, [shingles[number] for number in numbers.tolist()]

    return Documents(
        exact=exact,
        sizes=sizes,
        near=near,
        held_out=np.zeros(len(sizes), np.bool_),
        earlier=0,
        order=np.arange(len(sizes)),
        hits=np.empty((0, 3), np.int64),
        pairs=np.empty((0, 2), np.int64),
        bucket=lambda index: buckets[index],
        shingles=some,
    )
