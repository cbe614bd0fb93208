"""What it costs to find near duplicates, beside the peers: `python -m benchmarks.dedup_peers FOLDER --json`.

All sides get the same documents and say which to keep: word 5-grams, Jaccard similarity of a half or what comes
nearest to it (`work` says what each does). CPU seconds of the process and its children, without imports and
compiling, the cheapest of three runs; the machine may be shared, so the ratios count. `ours` goes from texts to
numbers, as libraries do; `ours with files` is both stages, which read and write compressed shards. The exhaustive
search of benchmarks.exhaustive judges the answers; it takes words as ours does, while peers cut text each in
their way.

FOLDER has `.jsonl` or `.jsonl.zst` files with a field `text`. Each peer gets a virtual environment in --peers if
it has none there; one that cannot be installed or fails is named with the reason.
"""

import argparse
import json
import os
import subprocess
import tempfile
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from benchmarks.dedup_peers_ours import in_memory, with_files
from benchmarks.dedup_peers_run import RUNS, THRESHOLD, cheapest
from benchmarks.exhaustive import Index
from benchmarks.filter_dedup import texts
from storage.formats.documents import Document
from tasks.dedup.config import DedupConfig

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Peer:
    """A package, and what each side of it in dedup_peers_run does."""

    needs: tuple[str, ...]
    sides: dict[str, str]


IN_PYTHON = "n-grams of lower-case words made by a regular expression in Python, then "
PEERS = {
    "datasketch": Peer(
        ("datasketch==2.0.0",),
        {"datasketch": IN_PYTHON + "MinHash (128) and MinHashLSH (0.5); candidates checked by their signatures"},
    ),
    "rensa": Peer(
        ("rensa==0.5.0",),
        {
            "rensa R-MinHash": IN_PYTHON + "RMinHashDeduplicator (128, 0.5, LSH), which checks signatures",
            "rensa C-MinHash": IN_PYTHON + "CMinHashDeduplicator (128, 0.5), which checks signatures",
            "rensa rho": IN_PYTHON
            + "sampled n-grams, LSH (32 bands of 4), no check; drops all members of a group",
        },
    ),
    # 0.4.1 needs Python 3.12.
    "text-dedup": Peer(
        ("text-dedup==0.4.0",),
        {"text-dedup": "its program: MinHash (128, xxh3), LSH (0.5), no check, groups; from a file to a data set"},
    ),
    # Versions of boto3 and aiobotocore that dolma's s3fs allows: pip tries hundreds before it finds them.
    "dolma": Peer(
        ("dolma==1.2.1", "boto3==1.28.17", "aiobotocore==2.5.4"),
        {
            "dolma n-grams": "its program: a Bloom filter of 5-grams; drops documents half of whose 5-grams were"
            " seen in whatever texts before, which is no similarity of two documents; from a file to a file",
            "dolma exact": "its program: a Bloom filter of texts, exact duplicates only; from a file to a file",
        },
    ),
}
GPU_ONLY = {
    "nemo-curator 1.4.0": "its fuzzy and exact deduplication are stages of one GPU each, made of cudf, whose first"
    " series ends without a CUDA driver: cudaErrorInsufficientDriver",
}


def main() -> None:
    """Run all sides, judge and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", action="store_true", help="print JSON (the only form there is)")
    parser.add_argument("--peers", type=Path, default=Path("dedup-peers"), help="folder of virtual environments")
    parser.add_argument("--megabytes", type=float, default=20.0, help="text to take, from the first files on")
    options = parser.parse_args()
    documents, megabytes = taken(options.folder, options.megabytes)
    with_files(options.folder, megabytes=0.2)  # compiles
    answers = {
        "ours": cheapest([in_memory(documents) for _ in range(RUNS)]),
        "ours with files": cheapest([with_files(options.folder, options.megabytes) for _ in range(RUNS)]),
    }
    theirs, not_run = of_peers(documents, options.peers)
    print(json.dumps(result(documents, megabytes, answers | theirs, not_run | GPU_ONLY), indent=1))


def taken(folder: Path, megabytes: float) -> tuple[list[Document], float]:
    """Return the first documents of a folder, and the size of their text."""
    documents: list[Document] = []
    size = 0
    for text in texts(folder):
        documents.append(Document(str(len(documents)), "all", text))
        size += len(text.encode())
        if size >= megabytes * 1e6:
            break
    return documents, size / 1e6


# ---- the sides ---------------------------------------------------------------------------------------------


def of_peers(documents: Sequence[Document], environments: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the answer of each side that has one, and of each other peer or side why it has none."""
    answers: dict[str, Any] = {}
    not_run: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "documents.jsonl"
        lines = [json.dumps({"id": document.id, "text": document.text}) + "\n" for document in documents]
        path.write_text("".join(lines))
        for name, peer in PEERS.items():
            try:
                python = python_of(environments / name, peer.needs)
            except subprocess.CalledProcessError as error:
                not_run[name] = last_line(error.stderr)
                continue
            for side in peer.sides:
                try:
                    answers[side] = answer(python, side, path, Path(folder) / side)
                except subprocess.CalledProcessError as error:
                    not_run[side] = last_line(error.stderr)
    return answers, not_run


def python_of(folder: Path, needs: Sequence[str]) -> Path:
    """Return the Python of a peer; make its environment if there is none."""
    python, whole = folder.absolute() / "bin" / "python", folder / "installed"
    if not whole.exists():
        venv.create(folder, with_pip=True, clear=True)
        done(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *needs)
        whole.touch()
    return python


def answer(python: Path, side: str, documents: Path, work: Path) -> dict[str, Any]:
    """Run one side of a peer in a process of its own."""
    printed = done(python, str(HERE / "dedup_peers_run.py"), side, str(documents), str(work))
    found: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return found


def done(python: Path, *arguments: str) -> str:
    """Run a Python that asks no hub for data sets; return what it printed."""
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    command = [str(python), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=offline).stdout


def last_line(text: str) -> str:
    """Return what an error says last."""
    return (text.strip().splitlines() or ["ended without a word"])[-1]


# ---- what comes out ----------------------------------------------------------------------------------------


def result(documents: list[Document], megabytes: float, answers: dict[str, Any], not_run: Any) -> dict[str, Any]:
    """Return a row for each side: its cost beside ours, and how good its answer is."""
    truth = Truth(documents)
    work = {
        "ours": "what both stages do between reading and writing; candidates checked by all their n-grams",
        "ours with files": "filter without rules and dedup, as they come; from shards (zstd) to shards",
    }
    work |= {side: says for peer in PEERS.values() for side, says in peer.sides.items()}
    cost = {side: sum(found["cpu_seconds"].values()) for side, found in answers.items()}
    rows = {
        side: {
            "work": work[side],
            "cpu_seconds": {part: round(seconds, 3) for part, seconds in found["cpu_seconds"].items()},
            "mb_per_s_core": round(megabytes / cost[side], 1),
            "cpu_ratio_to_ours": round(cost[side] / cost["ours"], 2),
            **truth.judged({str(number) for number in found["kept"]}),
        }
        for side, found in answers.items()
    }
    return {
        "sides": rows,
        "not_run": not_run,
        "megabytes": round(megabytes, 1),
        "documents": len(documents),
        "similar_pairs": len(truth.pairs),
        "config": DedupConfig().model_dump(),
        "machine": {"cores": os.cpu_count()},
    }


class Truth:
    """The pairs of documents that are alike, found by an exhaustive search."""

    def __init__(self, documents: Sequence[Document]) -> None:
        index = Index(documents)
        everything = set(index.grams)
        sizes = {name: len(grams) for name, grams in index.grams.items()}
        self.pairs = {
            (name, other)
            for name in everything
            for other, common in index.common(name, everything)
            if name < other and common >= THRESHOLD * (sizes[name] + sizes[other] - common)
        }
        same: dict[str, list[str]] = {}
        for document in documents:  # those of fewer than five words have no n-grams, but may be the same
            same.setdefault(document.text.strip(), []).append(document.id)
        self.pairs |= {(min(pair), max(pair)) for names in same.values() for pair in combinations(names, 2)}
        self._like: dict[str, set[str]] = {name: set() for name in everything}
        for name, other in self.pairs:
            self._like[name].add(other)
            self._like[other].add(name)

    def judged(self, kept: set[str]) -> dict[str, Any]:
        """Return how many documents stay, duplicates among them, and those dropped that nothing kept is like."""
        return {
            "kept": len(kept),
            "pairs_found": round(sum(not {*pair} <= kept for pair in self.pairs) / max(1, len(self.pairs)), 4),
            "duplicates_left": sum(bool(self._like[name] & kept) for name in kept),
            "false_removals": sum(not self._like[name] & kept for name in self._like.keys() - kept),
        }


if __name__ == "__main__":
    main()
