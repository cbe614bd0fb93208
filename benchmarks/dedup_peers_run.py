"""The peers' side of `benchmarks.dedup_peers`: one of them says which documents to keep. Prints JSON.

    python benchmarks/dedup_peers_run.py SIDE DOCUMENTS_FOLDER WORK_FOLDER

Runs with a Python that has the peer and nothing of ours. The documents are the lines of one file, with `id` and
`text`; the answer is the numbers of the lines that are kept. Each side does its work once on the first documents
before the clock starts, so that imports and first calls are no part of the measurement, then three times on all:
the cheapest counts, since others may use the machine.
"""

import json
import re
import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any

SHINGLE = 5
"""Words of an n-gram."""
THRESHOLD = 0.5
"""Jaccard similarity from which on a document is a duplicate."""
SLOTS = 128
"""Values of a signature."""
SEED = 1
WARM_UP = 20
"""Documents of the run that is not measured."""
RUNS = 3


class Clock:
    """CPU seconds of this process and its children, by the part of the work."""

    def __init__(self) -> None:
        self.cost: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Add what happens inside to a part."""
        began = cpu_seconds()
        yield
        self.cost[name] = self.cost.get(name, 0.0) + cpu_seconds() - began


def cpu_seconds() -> float:
    """Return the CPU time of this process, with all its threads, and of its finished children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


Side = Callable[[Path, Clock], list[int]]
"""Takes the file of documents, and returns the numbers of those it keeps."""


def main() -> None:
    """Run one side and print what it cost and kept."""
    side, documents, work = SIDES[sys.argv[1]], Path(sys.argv[2]), Path(sys.argv[3])
    lines = documents.read_bytes().splitlines(keepends=True)
    with redirect_stdout(sys.stderr):
        side(written(lines[:WARM_UP], work / "first"), Clock())
        runs = [measured(side, written(lines, work / str(number))) for number in range(RUNS)]
    print(json.dumps(cheapest(runs)))


def measured(side: Side, documents: Path) -> dict[str, Any]:
    """Return what one run cost, and kept."""
    clock = Clock()
    kept = side(documents, clock)
    return {"cpu_seconds": clock.cost, "kept": kept}


def cheapest(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the run that cost least."""
    return min(runs, key=lambda run: sum(run["cpu_seconds"].values()))


def written(lines: Sequence[bytes], folder: Path) -> Path:
    """Write the documents where dolma looks for them; return the file."""
    path = folder / "documents" / "0.jsonl"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"".join(lines))
    return path


# ---- libraries, to which documents in memory are given as sets of n-grams ----------------------------------


def texts(documents: Path) -> list[str]:
    """Read the documents, which is not measured."""
    return [json.loads(line)["text"] for line in documents.read_bytes().splitlines()]


def shingles(text: str) -> list[str]:
    """Return the n-grams of words in small letters; those of a document with fewer words are its words."""
    words = re.findall(r"\w+", text.lower())
    return [" ".join(words[at : at + SHINGLE]) for at in range(len(words) - SHINGLE + 1)] or words


def datasketch(documents: Path, clock: Clock) -> list[int]:
    """MinHash.bulk and MinHashLSH; a document is dropped if a kept candidate's signature is alike."""
    library = import_module("datasketch")
    corpus = texts(documents)
    with clock.part("shingles"):
        sets = [{gram.encode() for gram in shingles(text)} for text in corpus]
    with clock.part("sketches"):
        sketches = library.MinHash.bulk(sets, num_perm=SLOTS, seed=SEED)
    kept = []
    with clock.part("search"):
        index = library.MinHashLSH(threshold=THRESHOLD, num_perm=SLOTS)
        for number, sketch in enumerate(sketches):
            if all(sketch.jaccard(sketches[other]) < THRESHOLD for other in index.query(sketch)):
                index.insert(number, sketch)
                kept.append(number)
    return kept


def rensa_streaming(make: Callable[[Any], Any]) -> Side:
    """Return a side that asks one of rensa's deduplicators, as its manual does."""

    def side(documents: Path, clock: Clock) -> list[int]:
        library = import_module("rensa")
        corpus = texts(documents)
        with clock.part("shingles"):
            sets = [shingles(text) for text in corpus]
        with clock.part("sketches and search"):
            kept = make(library).add_pairs((str(number), grams) for number, grams in enumerate(sets))
        return [number for number, is_new in enumerate(kept) if is_new]

    return side


def rensa_rho(documents: Path, clock: Clock) -> list[int]:
    """The batch that rensa's benchmark shows: sampled n-grams, and a flag for each member of a group."""
    library = import_module("rensa")
    corpus = texts(documents)
    with clock.part("shingles"):
        sets = [shingles(text) for text in corpus]
    with clock.part("sketches"):
        sketches = library.RMinHash.digest_matrix_from_token_sets_rho(sets, num_perm=SLOTS, seed=SEED)
    with clock.part("search"):
        # 32 bands of 4: of the divisors of 128 the nearest to a threshold of a half.
        index = library.RMinHashLSH(threshold=THRESHOLD, num_perm=SLOTS, num_bands=32)
        flags = index.query_duplicate_flags_matrix_one_shot(sketches)
    return [number for number, is_duplicate in enumerate(flags) if not is_duplicate]


# ---- programs, to which the file is given ------------------------------------------------------------------


def text_dedup(documents: Path, clock: Clock) -> list[int]:
    """Its `minhash` program, called without its command line: candidates are trusted and joined to groups."""
    program, options, datasets = map(import_module, ("text_dedup.minhash", "text_dedup.utils", "datasets"))
    output = documents.parent.parent / "kept"
    given = {
        "io_args": options.IOArgs(
            path="json",
            data_files=str(documents),
            split="train",
            cache_dir=str(output.with_name("cache")),
            output=str(output),
            num_proc=1,
        ),
        "meta_args": options.MetaArgs(column="text"),
        # Without min_length all documents of fewer than 5 words are dropped; xxh3 is its faster hash.
        "minhash_args": options.MinHashArgs(
            ngram=SHINGLE, min_length=0, num_perm=SLOTS, threshold=THRESHOLD, hash_func="xxh3", hash_bits=32
        ),
    }
    with clock.part("command"):
        program.main.callback(**given)
    return [int(name) for name in datasets.load_from_disk(str(output))["id"]]


def dolma(dedupe: dict[str, Any]) -> Side:
    """Return a side that runs `dolma dedupe`, called without its command line."""

    def side(documents: Path, clock: Clock) -> list[int]:
        library = import_module("dolma")
        folder = documents.parent.parent
        words = sum(len(text.split()) for text in texts(documents))
        bloom = {"file": str(folder / "bloom"), "read_only": False, "size_in_bytes": 0}
        config = {
            "documents": [str(documents)],
            "dedupe": {"name": "duplicates", "document_dir": "documents", "skip_empty": True, **dedupe},
            "bloom_filter": {**bloom, "estimated_doc_count": 2 * words, "desired_false_positive_rate": 1e-5},
            "work_dir": {"input": str(folder / "in"), "output": str(folder / "out")},
            "compression": {"input": None, "output": None},
            "processes": 1,
            "is_s3_volume": False,
        }
        with clock.part("command"):
            library.deduper(config)
        answers = (folder / "attributes" / "duplicates" / documents.name).read_bytes().splitlines()
        found = [json.loads(line)["attributes"].get("duplicate") for line in answers]
        return [number for number, spans in enumerate(found) if not spans]

    return side


WHOLE = {"attribute_name": "duplicate", "paragraph_separator": "\x1e\x1d\x1e"}
"""A paragraph ends where no text has an end, so that it is the document."""
SIDES: dict[str, Side] = {
    "datasketch": datasketch,
    "rensa R-MinHash": rensa_streaming(lambda it: it.RMinHashDeduplicator(THRESHOLD, SLOTS, True, seed=SEED)),
    "rensa C-MinHash": rensa_streaming(lambda it: it.CMinHashDeduplicator(THRESHOLD, SLOTS, seed=SEED)),
    "rensa rho": rensa_rho,
    "text-dedup": text_dedup,
    "dolma n-grams": dolma(
        {
            "paragraphs": {
                **WHOLE,
                "by_ngram": {"ngram_length": SHINGLE, "stride": 1, "overlap_threshold": THRESHOLD},
            }
        }
    ),
    "dolma exact": dolma({"documents": {"attribute_name": "duplicate", "key": "$.text"}}),
}

if __name__ == "__main__":
    main()
