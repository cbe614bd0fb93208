"""What filter and dedup cost beside stock datatrove 0.10.1: `python -m benchmarks.filter_dedup FOLDER --json`.

Both sides read the same documents with the same rules for all of them (Gopher's quality and repetition,
FineWeb's), one after the other in one process each. Ours deduplicates as it does by default, which finds and
compares more pairs than stock does; stock runs as it comes, with words of spaCy, and with the words between white
space that ours takes. CPU seconds of the work that workers do and of finding the duplicates, without imports,
compiling and the pictures of our report; the whole commands, with all of that, are compared too. The machine may
be shared, so the ratios count.

Decisions are compared as stock makes them: which documents the filters keep, and which of these repeat an earlier
one of their cluster, of documents that agree in a bucket. `decision_agreement` is for equal words, layout and hash
functions: our clusters from stock's signatures. Ours have other hash functions, so that pairs of middling
similarity are found by one side alone: `decision_agreement_own_hashes`. How far stock agrees with itself when its
seed is another one is `stock_agreement_with_itself`.

FOLDER has `.jsonl` or `.jsonl.zst` files with a field `text`. Stock needs another Python (benchmarks/
filter_dedup_stock.txt); one is made in --stock if it is not there.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from benchmarks.decisions import agreement, repeats_of_ours, repeats_of_stock
from storage.artifacts.records import Part
from storage.artifacts.store import Artifact, Store
from storage.artifacts.writer import ArtifactWriter
from storage.formats.documents import DOCUMENTS, Document, DocumentWriter, read_documents, read_zstd_lines
from tasks.core.context import StageContext, nobody_watches
from tasks.core.execution import Execution
from tasks.dedup.build import dedup_corpus
from tasks.dedup.config import Bands, DedupConfig
from tasks.filter.build import filter_corpus
from tasks.filter.config import FilterConfig
from tasks.filter.policies import Policy
from tasks.filter.rules.registry import rule_config
from tasks.filter.words import DocumentWords

HERE = Path(__file__).parent


def main() -> None:
    """Run all sides and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", action="store_true", help="print JSON (the only form there is)")
    parser.add_argument("--stock", type=Path, default=Path("stock-datatrove"), help="virtual environment of stock")
    parser.add_argument("--megabytes", type=float, default=150.0, help="text to take, from the first files on")
    parser.add_argument("--ours", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ours:
        print(json.dumps(run_ours(options.ours)))
        return
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        corpus, megabytes = make_corpus(options.folder, work, options.megabytes)
        stock = stock_python(options.stock)
        ours = measured(
            [sys.executable, "-m", "benchmarks.filter_dedup", str(options.folder), "--ours", str(work)]
        )
        same = measured(stock_command(stock, corpus, work / "same", "whitespace"))
        again = measured([*stock_command(stock, corpus, work / "again", "whitespace"), "2"])
        same["repeats_as_we_say"] = repeats_of_stock(work / "same", same["filtered_by_shard"])
        as_it_comes = measured(stock_command(stock, corpus, work / "spacy", "spacy"))
    print(json.dumps(result(megabytes, ours, same, again, as_it_comes), indent=1))


def make_corpus(source: Path, work: Path, megabytes: float, shards: int = 8) -> tuple[Path, float]:
    """Write the documents once, for both sides, in shards; return their folder and the size of their text."""
    store = Store(str(work / "store"))
    writer = ArtifactWriter(store, "download", "0" * 16)
    taken: list[Document] = []
    size = 0
    for number, text in enumerate(texts(source)):
        taken.append(Document(f"d{number}", "all", text))
        size += len(text.encode())
        if size >= megabytes * 1e6:
            break
    parts = []
    for shard in range(shards):
        path = writer.scratch() / f"{shard}.jsonl.zst"
        with DocumentWriter(path) as documents:
            for document in taken[shard::shards]:
                documents.write(document)
        parts.append(writer.commit(f"train-{shard:05d}", {DOCUMENTS: path}, counts=documents.counts()))
    publish(writer, parts)
    folder = work / "shards"
    folder.mkdir()
    artifact = opened(store, "download")
    for file in artifact.files(DOCUMENTS):
        (folder / f"{file.part}.jsonl.zst").symlink_to(artifact.open(file))
    return folder, size / 1e6


def texts(source: Path) -> Iterator[str]:
    """Yield the texts of a folder, in the order of its file names."""
    for path in sorted([*source.rglob("*.jsonl.zst"), *source.rglob("*.jsonl")]):
        lines = read_zstd_lines(path) if path.suffix == ".zst" else path.read_bytes().splitlines()
        for line in lines:
            yield orjson.loads(line)["text"]


def publish(writer: ArtifactWriter, parts: list[Part]) -> None:
    """Finish an artifact of which nobody will ask how it was made."""
    nothing: dict[str, Any] = {name: {} for name in ("config", "inputs", "sources", "recipe", "libraries")}
    writer.publish(parts, version=1, run_id="run", code_commit="", started="", seconds=0.0, **nothing)


def opened(store: Store, stage: str) -> Artifact:
    """Return the only artifact of a stage."""
    artifact = store.find(stage, "0" * 16)
    assert artifact is not None
    return artifact


def run_ours(work: Path) -> dict[str, Any]:
    """Filter and dedup the corpus in this process."""
    store = Store(str(work / "store"))
    rules = tuple(rule_config(name) for name in ("gopher-quality", "gopher-repetition", "fineweb-quality"))
    wanted = FilterConfig(policies={"web": Policy(rules=rules)}, subsets={}, default_policy="web")
    warm_up()
    cost = run_stages(store, wanted, DedupConfig())
    return {
        "cpu_seconds": cost,
        "peak_rss_mb": peak_rss_mb(),
        "filtered": kept_ids(opened(store, "filter")),
        "kept": kept_ids(opened(store, "dedup")),
        "repeats": repeats_of_ours(opened(store, "filter"), Bands(14, 8)),
    }


def run_stages(store: Store, policies: FilterConfig, dedup: DedupConfig) -> dict[str, float]:
    """Filter and deduplicate the corpus of a store in this process; return the CPU seconds of each stage."""
    cost: dict[str, float] = {}
    stages: dict[str, tuple[str, Callable[..., list[Part]]]] = {
        "filter": ("download", partial(filter_corpus, policies)),
        "dedup": ("filter", partial(dedup_corpus, dedup)),
    }
    for stage, (source, build) in stages.items():
        writer = ArtifactWriter(store, stage, "0" * 16)
        context = Stopwatch(writer, Execution(workers=1), nobody_watches)
        began = time.process_time()
        parts = build(opened(store, source), context=context)
        cost[stage] = context.stopped - began
        publish(writer, parts)
    return cost


def everything() -> FilterConfig:
    """Return the config of a filter that drops nothing."""
    return FilterConfig(policies={"all": Policy()}, subsets={}, default_policy="all")


def peak_rss_mb() -> float:
    """Return the most memory that this process had, in MiB. What `getrusage` says may be its parent's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("/proc/self/status must have VmHWM: this needs Linux")


class Stopwatch(StageContext):
    """Stops the time when a stage begins with its report, which is for people and takes as long for a terabyte."""

    stopped = 0.0

    def table(self, title: str, rows: list[dict[str, Any]]) -> None:
        """Take a table of the report."""
        self.stopped = self.stopped or time.process_time()
        super().table(title, rows)


def warm_up() -> None:
    """Let what is compiled be compiled before the clock starts, for bytes and for code points."""
    for ending in ("", "é"):
        words = DocumentWords(f"the cat sat on the mat, as it did for 3.5 years {ending}")
        words.repeated_letters(2)
        words.most_frequent(2)
        assert "the" in words
        assert words.lines.lines == words.paragraphs.paragraphs == 1
        words.shingles(5)


def kept_ids(artifact: Artifact) -> list[str]:
    """Return the ids of an artifact's documents."""
    return [document.id for file in artifact.files(DOCUMENTS) for document in read_documents(artifact.open(file))]


def stock_python(folder: Path) -> Path:
    """Return the Python of stock datatrove; make its environment if there is none."""
    python = folder.absolute() / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        needs = str(HERE / "filter_dedup_stock.txt")
        subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", needs], check=True, stdout=sys.stderr)
    return python


def stock_command(python: Path, corpus: Path, work: Path, words: str) -> list[str]:
    """Return the command that runs stock."""
    return [str(python), str(HERE / "filter_dedup_stock.py"), str(corpus), str(work), words]


def measured(command: list[str]) -> dict[str, Any]:
    """Run one side; add the CPU of its whole process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    found["command_cpu_seconds"] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return found


def result(megabytes: float, ours: Any, same: Any, again: Any, as_it_comes: Any) -> dict[str, Any]:
    """Return the figures that are judged, and what they are made of."""
    sides = {"ours": ours, "stock_same_words": same, "stock_as_it_comes": as_it_comes}
    cpu = {name: sum(side["cpu_seconds"].values()) for name, side in sides.items()}
    return {
        "cpu_ratio_vs_stock": round(cpu["stock_as_it_comes"] / cpu["ours"], 1),
        "cpu_ratio_same_words": round(cpu["stock_same_words"] / cpu["ours"], 1),
        "command_ratio_same_words": round(same["command_cpu_seconds"] / ours["command_cpu_seconds"], 1),
        "filter_disagreements": len({*ours["filtered"]} ^ {*same["filtered"]}),
        "decision_agreement": agreement({**ours, "repeats": same["repeats_as_we_say"]}, same),
        "decision_agreement_own_hashes": agreement(ours, same),
        "stock_agreement_with_itself": agreement(again, same),
        "mb_per_s_core": round(megabytes / cpu["ours"], 1),
        "peak_rss_mb": round(ours["peak_rss_mb"]),
        "megabytes": round(megabytes, 1),
        "documents_kept": {
            name: {"filter": len(side["filtered"]), "dedup": len(side["kept"])} for name, side in sides.items()
        },
        "cpu_seconds": {
            name: {stage: round(seconds, 2) for stage, seconds in side["cpu_seconds"].items()}
            for name, side in sides.items()
        },
        "machine": {"cores": os.cpu_count()},
    }


if __name__ == "__main__":
    main()
