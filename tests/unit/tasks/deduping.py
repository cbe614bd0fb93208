"""Corpora for dedup, and what it makes of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random

from datatrove.utils.text import simplify_text

from storage.artifacts.store import Artifact, Store
from storage.artifacts.writer import ArtifactWriter
from storage.formats.documents import Document, DocumentWriter, read_documents
from storage.formats.drops import DROPS, DropRow, read_drops
from storage.formats.shingles import SHINGLES, Shingles, ShingleWriter
from tasks.core.execution import Execution
from tasks.core.runner import run_stage
from tasks.core.stage import RunContext
from tasks.dedup.config import DedupConfig
from tasks.dedup.stage import STAGE
from tasks.filter.words import DocumentWords

Text = tuple[str, str]  # subset, text


def make_filtered(
    root: Path,
    parts: Mapping[str, Sequence[Text]],
    layouts: Mapping[str, Shingles] | None = None,
    missing: int = 0,
    key: str = "0" * 16,
) -> Artifact:
    """Write a filter artifact; `missing` leaves out the shingles of that many last documents."""
    writer = ArtifactWriter(Store(str(root)), "filter", key)
    committed = []
    for part, texts in parts.items():
        layout = (layouts or {}).get(part, Shingles())
        paths = {
            "documents": writer.scratch() / f"{part}.jsonl.zst",
            SHINGLES: writer.scratch() / f"{part}.parquet",
        }
        with (
            DocumentWriter(paths["documents"]) as documents,
            ShingleWriter(paths[SHINGLES], layout) as shingles,
        ):
            for line, (subset, text) in enumerate(texts):
                documents.write(Document(f"{part}:{line}", subset, text))
                if line < len(texts) - missing:
                    words = DocumentWords(text)
                    found = words.shingles(layout.words)
                    shingles.write(f"{part}:{line}", subset, words.exact_hash(), True, found)
        committed.append(writer.commit(part, paths, counts=documents.counts()))
    nothing = {"config": {}, "inputs": {}, "sources": {}, "recipe": {}, "libraries": {}}
    return writer.publish(committed, version=1, run_id="run", code_commit="", started="", seconds=0.0, **nothing)


def run_dedup(corpus: Artifact, config: DedupConfig | None = None, workers: int = 1) -> Artifact:
    context = RunContext(corpus.store, "run", {}, Execution(workers=workers))
    return run_stage(STAGE, config or DedupConfig(), {"corpus": corpus}, context).artifact


def kept_ids(artifact: Artifact) -> dict[str, list[str]]:
    return {
        file.part: [document.id for document in read_documents(artifact.open(file))]
        for file in artifact.files("documents")
    }


def dropped(artifact: Artifact) -> list[DropRow]:
    return [row for file in artifact.files(DROPS) for row in read_drops(artifact.open(file))]


def random_text(random: Random, words: int = 200) -> str:
    return " ".join(random_word(random) for _ in range(words))


def random_word(random: Random) -> str:
    return "".join(random.choices("abcdefgh", k=4))  # without digits: MinHash takes all numbers for the same


def edited(random: Random, text: str, share: float) -> str:
    words = text.split()
    for place in random.sample(range(len(words)), round(share * len(words))):
        words[place] = random_word(random)
    return " ".join(words)


def jaccard(first: str, second: str) -> float:
    sets = []
    for text in (first, second):
        words = simplify_text(text).split()
        sets.append({tuple(words[start : start + 5]) for start in range(len(words) - 4)})
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def some_shards(seed: int) -> dict[str, list[Text]]:
    random = Random(seed)
    texts = [random_text(random) for _ in range(30)]
    pool = texts + [edited(random, text, 0.01) for text in texts] + texts[:10]
    random.shuffle(pool)
    names = ["train-00000", "train-00001", "train-00002", "val-00000", "test-00000"]
    return {name: [("S", text) for text in pool[start::5]] for start, name in enumerate(names)}
