"""What dedup finds and what it removes by mistake: `python -m benchmarks.dedup_quality FOLDER --json`.

Plants copies of known kinds among documents of a folder that are unlike each other, runs filter (without rules)
and dedup with their defaults, and counts with an exhaustive search that shares no code with them: sets of word
5-grams as datatrove normalises them, and an inverted index over all of them. The same seed plants the same.

FOLDER has `.jsonl` or `.jsonl.zst` files with a field `text`.
"""

import argparse
import json
import random
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datatrove.utils.text import simplify_text

from benchmarks.filter_dedup import opened, publish, texts
from storage.artifacts.store import Store
from storage.artifacts.writer import ArtifactWriter
from storage.formats.documents import DOCUMENTS, TRAIN, VAL, Document, DocumentWriter, read_documents
from tasks.core.context import StageContext, nobody_watches
from tasks.core.execution import Execution
from tasks.dedup.build import dedup_corpus
from tasks.dedup.config import DedupConfig
from tasks.filter.build import filter_corpus
from tasks.filter.config import FilterConfig
from tasks.filter.policies import Policy

SHINGLE = 5
"""Words of an n-gram."""
UNLIKE = 0.05
"""Most Jaccard similarity of two documents before anything is planted."""
WORDS = (150, 1500)
"""Fewest and most words of a document that copies are made of."""
LEAK = 0.8
"""A held-out document leaks if this share of its n-grams stands in a training document."""


@dataclass
class Planted:
    """The documents, and which pairs are copies of which kind."""

    train: list[Document] = field(default_factory=list)
    val: list[Document] = field(default_factory=list)
    pairs: dict[str, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))
    """Kind -> (id of the original, id of the copy)."""


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
    config = DedupConfig()
    print(json.dumps({**judged(planted, index, config), "config": config.model_dump()}, indent=1))


# ---- the corpus --------------------------------------------------------------------------------------------


def plant(folder: Path, of_each: int, chance: random.Random) -> Planted:
    """Return originals that are unlike each other, and copies of them in a random order."""
    kinds: dict[str, Callable[[str], str]] = {
        "exact": lambda text: text,
        "whitespace": lambda text: "\n ".join(text.split(" ")),
        "case": str.upper,
        **{f"{percent}": edits(percent / 100, chance) for percent in (1, 3, 5, 10)},
        "containment": middle,
    }
    bases = unlike(folder, of_each * (2 * len(kinds) + 1))
    planted = Planted()
    for number, (kind, copy) in enumerate(kinds.items()):
        for held_out in (False, True):
            first = (2 * number + held_out) * of_each
            for base in bases[first : first + of_each]:
                twin = Document(f"{base.id}-{kind}", "all", copy(base.text))
                planted.train += [base] if held_out else [base, twin]
                planted.val += [twin] if held_out else []
                planted.pairs[f"held-out {kind}" if held_out else kind].append((base.id, twin.id))
    for base in bases[2 * len(kinds) * of_each :]:
        chain = [base]
        for step in range(10):
            chain.append(Document(f"{base.id}-chain{step}", "all", edits(0.05, chance)(chain[-1].text)))
        planted.train += chain
    chance.shuffle(planted.train)
    return planted


def unlike(folder: Path, wanted: int) -> list[Document]:
    """Return documents of which no two are alike."""
    owners: dict[tuple[str, ...], list[int]] = defaultdict(list)
    sizes: list[int] = []
    found: list[Document] = []
    for text in texts(folder):
        if len(found) == wanted:
            return found
        if not WORDS[0] <= len(text.split()) <= WORDS[1]:
            continue
        grams = shingles(text)
        common = Counter(owner for gram in grams for owner in owners.get(gram, ()))
        if len(grams) < WORDS[0] // 2 or any(
            n / (len(grams) + sizes[owner] - n) > UNLIKE or n / min(len(grams), sizes[owner]) > UNLIKE
            for owner, n in common.items()
        ):
            continue
        for gram in grams:
            owners[gram].append(len(found))
        sizes.append(len(grams))
        found.append(Document(f"d{len(found)}", "all", text))
    raise SystemExit(f"{folder} must hold {wanted} documents that are unlike each other, found {len(found)}")


def edits(share: float, chance: random.Random) -> Callable[[str], str]:
    """Return a function that puts other words in place of a share of a text's words."""

    def edit(text: str) -> str:
        words = text.split(" ")
        for place in chance.sample(range(len(words)), max(1, round(share * len(words)))):
            words[place] = "".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(3, 9)))
        return " ".join(words)

    return edit


def middle(text: str) -> str:
    """Return the middle third of a text."""
    words = text.split(" ")
    return " ".join(words[len(words) // 3 : 2 * len(words) // 3])


# ---- the exhaustive search ---------------------------------------------------------------------------------


def shingles(text: str) -> frozenset[tuple[str, ...]]:
    """Return the set of a text's word n-grams."""
    words = simplify_text(text).split()
    return frozenset(zip(*(words[start:] for start in range(SHINGLE)), strict=False))


class Index:
    """All n-grams of all documents."""

    def __init__(self, documents: Sequence[Document]) -> None:
        self.grams = {document.id: shingles(document.text) for document in documents}
        self._owners: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for name, grams in self.grams.items():
            for gram in grams:
                self._owners[gram].append(name)

    def common(self, name: str, among: set[str]) -> Iterator[tuple[str, int]]:
        """Yield the documents among some that share n-grams with one, and how many."""
        found = Counter(owner for gram in self.grams[name] for owner in self._owners[gram] if owner in among)
        del found[name]
        yield from found.items()

    def similarity(self, name: str, among: set[str]) -> float:
        """Return the largest Jaccard similarity of a document with one of some others."""
        size = len(self.grams[name])
        shares = (n / (size + len(self.grams[other]) - n) for other, n in self.common(name, among))
        return max(shares, default=0.0)

    def containment(self, name: str, among: set[str]) -> float:
        """Return the largest share of a document's n-grams that one of some others has."""
        return max((n / len(self.grams[name]) for _, n in self.common(name, among)), default=0.0)


# ---- what comes out ----------------------------------------------------------------------------------------


def judged(planted: Planted, index: Index, config: DedupConfig) -> dict[str, Any]:
    """Run both stages and return the shares that are judged."""
    train, val = run(planted, config)
    removed = {document.id for document in planted.train} - train
    false = [name for name in removed if index.similarity(name, train | val) < config.min_similarity]
    recall = {
        f"recall_{kind}": round(sum(not {*pair} <= train for pair in pairs) / len(pairs), 4)
        for kind, pairs in planted.pairs.items()
        if not kind.startswith("held-out")
    }
    twins = [twin for kind, pairs in planted.pairs.items() if kind.startswith("held-out") for _, twin in pairs]
    return {
        **recall,
        "false_removals": round(len(false) / len(planted.train), 5),
        "validation_leak": sum(index.containment(twin, train) >= LEAK for twin in twins if twin in val),
        "validation_twins": len(twins),
        "documents": len(planted.train) + len(planted.val),
        "removed": len(removed),
    }


def run(planted: Planted, config: DedupConfig) -> tuple[set[str], set[str]]:
    """Return the ids of the training and of the held-out documents that filter and dedup keep."""
    everything = FilterConfig(policies={"all": Policy()}, subsets={}, default_policy="all")
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
        for stage, source in (("filter", "download"), ("dedup", "filter")):
            writer = ArtifactWriter(store, stage, "0" * 16)
            context = StageContext(writer, Execution(workers=1), nobody_watches)
            corpus = opened(store, source)
            if stage == "filter":
                parts = filter_corpus(everything, corpus, context=context)
            else:
                parts = dedup_corpus(config, corpus, context=context)
            publish(writer, parts)
        artifact = opened(store, "dedup")
        kept = {
            file.part.partition("-")[0]: {document.id for document in read_documents(artifact.open(file))}
            for file in artifact.files(DOCUMENTS)
        }
    return kept[TRAIN], kept[VAL]


if __name__ == "__main__":
    main()
