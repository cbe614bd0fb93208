import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random

import pytest
from datatrove.utils.text import simplify_text

from storage.artifacts.store import Artifact, Store
from storage.artifacts.writer import ArtifactWriter
from storage.errors import CorruptFileError, InputError
from storage.formats.documents import Document, DocumentWriter, read_documents
from storage.formats.minhash import MinHash
from storage.formats.signatures import SignatureWriter
from tasks.core.context import TABLES
from tasks.core.execution import Execution
from tasks.core.runner import run_stage
from tasks.core.stage import RunContext
from tasks.dedup.config import DedupConfig
from tasks.dedup.drops import SAMPLES
from tasks.dedup.stage import STAGE
from tasks.filter.exact import exact_hash
from tasks.filter.signatures import Signer
from tasks.filter.words import DocumentWords

Text = tuple[str, str]  # subset, text


def make_filtered(
    root: Path, parts: Mapping[str, Sequence[Text]], layouts: Mapping[str, MinHash] | None = None, signed: int = 0
) -> Artifact:
    """Write a filter artifact; `signed` leaves out the signatures of that many last documents."""
    writer = ArtifactWriter(Store(str(root)), "filter", "0" * 16)
    committed = []
    for part, texts in parts.items():
        layout = (layouts or {}).get(part, MinHash())
        paths = {
            "documents": writer.scratch() / f"{part}.jsonl.zst",
            "signatures": writer.scratch() / f"{part}.parquet",
        }
        with (
            DocumentWriter(paths["documents"]) as documents,
            SignatureWriter(paths["signatures"], layout) as signatures,
        ):
            for line, (subset, text) in enumerate(texts):
                documents.write(Document(f"{part}:{line}", subset, text))
                if line < len(texts) - signed:
                    words = DocumentWords(text).normalised
                    signatures.write(exact_hash(text), Signer(layout).signature(words))
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


def test_held_out_documents_win_over_training_documents(tmp_path: Path) -> None:
    random = Random(0)
    a, b, c, d = (random_text(random) for _ in range(4))
    corpus = make_filtered(
        tmp_path,
        {
            "train-00000": [("S", a), ("S", b), ("S", c), ("S.x", edited(random, d, 0.01)), ("S", f" {a}\n")],
            "train-00001": [("S", d), ("S", b), ("S", random_text(random))],
            "val-00000": [("S", c), ("S", a)],
            "test-00000": [("S", a.upper()), ("S", d)],
        },
    )

    artifact = run_dedup(corpus)

    assert kept_ids(artifact) == {
        "train-00000": ["train-00000:1"],
        "train-00001": ["train-00001:2"],
        "val-00000": ["val-00000:0"],
        "test-00000": ["test-00000:0", "test-00000:1"],
    }
    contamination = {k: v for k, v in artifact.counts.items() if k.startswith("contamination")}
    assert contamination == {
        "contamination.S.test.exact-duplicate": 3,  # both copies of a equal one that is like the test's, and d
        "contamination.S.val.exact-duplicate": 1,
        "contamination.S.x.test.near-duplicate": 1,
    }
    tables = json.loads(artifact.report(TABLES) or b"")
    assert {tuple(row.values()) for row in tables["Held-out text found in training text"]} == {
        ("S", "test", "exact-duplicate", 3),
        ("S", "val", "exact-duplicate", 1),
        ("S.x", "test", "near-duplicate", 1),
    }


def test_counts_add_up_and_reasons_are_told_apart(tmp_path: Path) -> None:
    random = Random(1)
    texts = [random_text(random) for _ in range(20)]
    pairs = [("A", text) for text in texts] + [("B", text) for text in texts[:5]]
    pairs += [("B", edited(random, text, 0.005)) for text in texts[5:9]] + [("B", "short"), ("B", "short")]

    artifact = run_dedup(make_filtered(tmp_path, {"train-00000": pairs[::2], "train-00001": pairs[1::2]}))

    counts = artifact.counts
    assert counts["documents"] + counts["dropped"] == len(pairs)
    assert counts["documents"] == sum(len(ids) for ids in kept_ids(artifact).values()) == 21
    dropped = Counter({k: v for k, v in counts.items() if k.startswith("dropped.")})
    # A document of the first shard stays even if its original is in the second one.
    assert sum(v for k, v in dropped.items() if k.endswith(".exact-duplicate")) == 6
    assert sum(v for k, v in dropped.items() if k.endswith(".near-duplicate")) == 4
    rows = {row["subset"]: row for row in json.loads(artifact.report(TABLES) or b"")["Duplicates"]}
    assert rows["all"]["documents in"] == len(pairs)
    assert rows["all"]["dropped"] == 10


def test_planted_edits_are_found_and_other_texts_are_kept(tmp_path: Path) -> None:
    random = Random(2)
    originals = [random_text(random, random.randrange(100, 400)) for _ in range(150)]
    copies = {share: [edited(random, text, share) for text in originals] for share in (0.0, 0.01, 0.03, 0.3)}
    parts = {"test-00000": originals, **{f"train-{n:05d}": texts for n, texts in enumerate(copies.values())}}
    corpus = make_filtered(tmp_path, {part: [("S", text) for text in texts] for part, texts in parts.items()})

    kept = kept_ids(run_dedup(corpus, DedupConfig(min_similarity=0.5)))

    recall = [1 - len(kept[f"train-{n:05d}"]) / len(originals) for n in range(4)]
    assert recall[0] == 1
    assert recall[1] > 0.97
    # Of 5-grams 1 - 0.97^5 = 14 % are touched by 3 % of edits: similarity 0.75, found with 1-(1-0.75^8)^14 = 0.78.
    assert recall[2] > 0.7
    assert recall[3] == 0
    assert len(kept["test-00000"]) == len(originals)
    for number, texts in enumerate(copies.values()):
        left = {int(name.rpartition(":")[2]) for name in kept[f"train-{number:05d}"]}
        for line in set(range(len(originals))) - left:
            assert jaccard(originals[line], texts[line]) > 0.3  # estimated as at least 0.5, standard error 0.05


def test_min_similarity_decides_which_candidates_are_dropped(tmp_path: Path) -> None:
    random = Random(3)
    originals = [random_text(random) for _ in range(100)]
    copies = [edited(random, text, 0.02) for text in originals]  # similarity near 0.82
    parts = {"train-00000": [("S", text) for text in originals], "train-00001": [("S", text) for text in copies]}
    corpus = make_filtered(tmp_path, parts)

    kept = [
        len(kept_ids(run_dedup(corpus, DedupConfig(min_similarity=share)))["train-00001"])
        for share in (0.0, 0.7, 0.85, 1.0)
    ]

    assert kept == sorted(kept)
    assert kept[0] < 15
    assert kept[2] > kept[1]
    assert kept[3] == 100


def test_near_duplicates_stay_when_only_exact_ones_are_wanted(tmp_path: Path) -> None:
    random = Random(4)
    text = random_text(random)
    corpus = make_filtered(
        tmp_path, {"train-00000": [("S", text), ("S", edited(random, text, 0.01)), ("S", text)]}
    )

    artifact = run_dedup(corpus, DedupConfig(near_duplicates=False))

    assert kept_ids(artifact) == {"train-00000": ["train-00000:0", "train-00000:1"]}
    assert artifact.counts["dropped.S.exact-duplicate"] == 1


def test_samples_show_both_texts_of_a_near_duplicate(tmp_path: Path) -> None:
    random = Random(5)
    originals = [random_text(random) for _ in range(SAMPLES + 10)]
    corpus = make_filtered(
        tmp_path,
        {
            "train-00000": [("S", edited(random, text, 0.005)) for text in originals],
            "val-00000": [("S", text) for text in originals],
        },
    )

    artifact = run_dedup(corpus)

    samples = [json.loads(line) for line in (artifact.report("duplicate_samples.jsonl") or b"").splitlines()]
    assert len(samples) == SAMPLES
    for sample in samples:
        line = int(sample["dropped"]["id"].removeprefix("train-00000:"))
        assert sample["kept"]["part"] == "val-00000"
        assert sample["kept"]["id"] == f"val-00000:{line}"
        assert sample["kept"]["text"] == originals[line][:400]
        assert sample["similarity"] >= 0.7


def some_shards(seed: int) -> dict[str, list[Text]]:
    random = Random(seed)
    texts = [random_text(random) for _ in range(30)]
    pool = texts + [edited(random, text, 0.01) for text in texts] + texts[:10]
    random.shuffle(pool)
    names = ["train-00000", "train-00001", "train-00002", "val-00000", "test-00000"]
    return {name: [("S", text) for text in pool[start::5]] for start, name in enumerate(names)}


def test_two_workers_write_the_bytes_of_one(tmp_path: Path) -> None:
    one = run_dedup(make_filtered(tmp_path / "one", some_shards(6)), workers=1)
    two = run_dedup(make_filtered(tmp_path / "two", some_shards(6)), workers=2)

    assert one.content_digest == two.content_digest
    assert one.counts == two.counts
    assert one.counts["dropped"] > 30
    assert one.report("duplicate_samples.jsonl") == two.report("duplicate_samples.jsonl")


def test_resumed_dedup_does_only_what_is_missing(tmp_path: Path) -> None:
    corpus = make_filtered(tmp_path, some_shards(7))
    whole = run_dedup(corpus)
    folder = f"artifacts/dedup/{whole.manifest.key}"
    corpus.store.backend.delete(f"{folder}/manifest.json")  # as if it had been killed
    corpus.store.backend.delete(f"{folder}/parts/train-00001.json")

    resumed = run_dedup(corpus)

    assert resumed.content_digest == whole.content_digest
    assert resumed.report("duplicate_samples.jsonl") == whole.report("duplicate_samples.jsonl")
    redone = {
        new.part for old, new in zip(whole.manifest.files, resumed.manifest.files, strict=True) if old != new
    }
    assert redone == {"train-00001"}


def test_shard_of_which_nothing_is_left_is_still_a_part(tmp_path: Path) -> None:
    texts = [("S", random_text(Random(8)))]
    corpus = make_filtered(tmp_path, {"train-00000": texts, "val-00000": texts, "test-00000": []})

    assert kept_ids(run_dedup(corpus)) == {"train-00000": [], "val-00000": ["val-00000:0"], "test-00000": []}


def test_signatures_of_two_layouts_are_refused(tmp_path: Path) -> None:
    texts = [("S", random_text(Random(9)))]
    corpus = make_filtered(tmp_path, {"train-00000": texts, "val-00000": texts}, {"val-00000": MinHash(seed=2)})

    with pytest.raises(CorruptFileError, match="one layout"):
        run_dedup(corpus)


def test_shard_with_more_documents_than_signatures_is_refused(tmp_path: Path) -> None:
    corpus = make_filtered(tmp_path, {"train-00000": [("S", "a"), ("S", "b")]}, signed=1)

    with pytest.raises(CorruptFileError, match="1 signatures, found 2"):
        run_dedup(corpus)


def test_part_of_no_known_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="dev-00000"):
        run_dedup(make_filtered(tmp_path, {"dev-00000": [("S", "a")]}))
