import json
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from storage.errors import CorruptFileError, InputError
from storage.formats.shingles import Shingles
from tasks.core.context import TABLES
from tasks.dedup.config import DedupConfig
from tasks.dedup.plan import SAMPLES
from tests.unit.tasks.deduping import (
    dropped,
    edited,
    jaccard,
    kept_ids,
    make_filtered,
    random_text,
    run_dedup,
    some_shards,
)


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
        "contamination.S.test.exact-duplicate": 1,
        "contamination.S.test.near-duplicate": 2,  # both copies of a, in capitals there
        "contamination.S.val.exact-duplicate": 1,
        "contamination.S.x.test.near-duplicate": 1,
    }
    tables = json.loads(artifact.report(TABLES) or b"")
    assert {tuple(row.values()) for row in tables["Held-out text found in training text"]} == {
        ("S", "test", "exact-duplicate", 1),
        ("S", "test", "near-duplicate", 2),
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
    copies = {share: [edited(random, text, share) for text in originals] for share in (0.0, 0.01, 0.03, 0.05, 0.3)}
    parts = {"test-00000": originals, **{f"train-{n:05d}": texts for n, texts in enumerate(copies.values())}}
    corpus = make_filtered(tmp_path, {part: [("S", text) for text in texts] for part, texts in parts.items()})

    kept = kept_ids(run_dedup(corpus))

    for number, texts in enumerate(copies.values()):
        left = {int(name.rpartition(":")[2]) for name in kept[f"train-{number:05d}"]}
        alike = [jaccard(original, text) for original, text in zip(originals, texts, strict=True)]
        assert {line for line, similarity in enumerate(alike) if similarity < 0.5} <= left
        missed = [line for line in left if alike[line] >= 0.55]
        assert len(missed) <= 2, "half a per cent is expected at 0.55, and far less above"
    assert len(kept["test-00000"]) == len(originals)


def test_min_similarity_is_the_true_jaccard_similarity(tmp_path: Path) -> None:
    random = Random(3)
    originals = [random_text(random) for _ in range(100)]
    copies = [edited(random, text, random.choice((0.01, 0.02, 0.03, 0.05))) for text in originals]
    parts = {"train-00000": [("S", text) for text in originals], "train-00001": [("S", text) for text in copies]}
    corpus = make_filtered(tmp_path, parts)
    alike = [jaccard(original, text) for original, text in zip(originals, copies, strict=True)]

    for threshold in (0.5, 0.7, 0.85, 1.0):
        artifact = run_dedup(corpus, DedupConfig(min_similarity=threshold))
        left = {int(name.rpartition(":")[2]) for name in kept_ids(artifact)["train-00001"]}
        assert {line for line, similarity in enumerate(alike) if similarity < threshold} <= left
        assert sum(alike[line] >= threshold + 0.05 for line in left) <= 1
        for row in dropped(artifact):
            assert row.value == pytest.approx(alike[row.index], abs=1e-6)


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
        assert sample["similarity"] >= 0.5


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


def test_shingles_of_two_layouts_are_refused(tmp_path: Path) -> None:
    texts = [("S", random_text(Random(9)))]
    corpus = make_filtered(tmp_path, {"train-00000": texts, "val-00000": texts}, {"val-00000": Shingles(words=4)})

    with pytest.raises(CorruptFileError, match="made alike"):
        run_dedup(corpus)


def test_shard_with_more_documents_than_rows_of_shingles_is_refused(tmp_path: Path) -> None:
    corpus = make_filtered(tmp_path, {"train-00000": [("S", "a"), ("S", "b")]}, missing=1)

    with pytest.raises(CorruptFileError, match="1 rows of shingles, found 2"):
        run_dedup(corpus)


def test_part_of_no_known_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="dev-00000"):
        run_dedup(make_filtered(tmp_path, {"dev-00000": [("S", "a")]}))


# ---- held-out text -------------------------------------------------------------------------------------------


def test_training_text_that_holds_a_held_out_document_goes(tmp_path: Path) -> None:
    random = Random(10)
    held, other = random_text(random, 100), random_text(random, 100)
    book = f"{random_text(random, 3000)} {held} {random_text(random, 3000)}"
    partly = f"{random_text(random, 3000)} {' '.join(held.split()[:70])}"
    corpus = make_filtered(
        tmp_path, {"train-00000": [("S", book), ("S", partly), ("S", other)], "val-00000": [("S", held)]}
    )

    artifact = run_dedup(corpus)

    assert kept_ids(artifact) == {"train-00000": ["train-00000:1", "train-00000:2"], "val-00000": ["val-00000:0"]}
    (row,) = dropped(artifact)
    assert (row.id, row.rule, row.reason) == ("train-00000:0", "held-out", "holds-held-out-text")
    assert (row.value, row.bound) == (1.0, 0.8)
    assert (row.twin_id, row.twin_part, row.twin_index, row.twin_artifact) == ("val-00000:0", "val-00000", 0, "")
    assert artifact.counts["contamination.S.val.holds-held-out-text"] == 1


def test_held_out_phrase_that_stands_anywhere_goes_itself(tmp_path: Path) -> None:
    random = Random(11)
    phrase = random_text(random, 8)  # four shingles
    book = f"{random_text(random, 500)} {phrase} {random_text(random, 500)}"
    corpus = make_filtered(tmp_path, {"train-00000": [("S", book)], "val-00000": [("S", phrase)]})

    artifact = run_dedup(corpus)

    assert kept_ids(artifact) == {"train-00000": ["train-00000:0"], "val-00000": []}
    (row,) = dropped(artifact)
    assert (row.id, row.reason, row.twin_id) == ("val-00000:0", "found-in-training-text", "train-00000:0")
    assert kept_ids(run_dedup(corpus, DedupConfig(held_out_min_shingles=3)))["train-00000"] == []


def test_text_of_a_subset_without_near_duplicates_still_holds_no_held_out_text(tmp_path: Path) -> None:
    # The flag is the filter's; what is looked up in the index is all the same.
    random = Random(12)
    held = random_text(random, 100)
    corpus = make_filtered(
        tmp_path, {"train-00000": [("S", f"{held} {random_text(random, 900)}")], "test-00000": [("S", held)]}
    )

    assert kept_ids(run_dedup(corpus, DedupConfig(near_duplicates=False)))["train-00000"] == []


# ---- which one is kept ---------------------------------------------------------------------------------------


def test_the_longest_is_kept_if_asked(tmp_path: Path) -> None:
    random = Random(13)
    long = random_text(random, 400)
    short = " ".join(long.split()[:300])
    corpus = make_filtered(tmp_path, {"train-00000": [("S", short), ("S", long)]})

    assert kept_ids(run_dedup(corpus)) == {"train-00000": ["train-00000:0"]}
    assert kept_ids(run_dedup(corpus, DedupConfig(keep="longest"))) == {"train-00000": ["train-00000:1"]}


def test_documents_that_stand_in_longer_ones_go_if_asked(tmp_path: Path) -> None:
    random = Random(14)
    whole = [random_text(random, 600) for _ in range(40)]
    middles = [" ".join(text.split()[200:300]) for text in whole]
    corpus = make_filtered(
        tmp_path,
        {"train-00000": [("S", text) for text in middles], "train-00001": [("S", text) for text in whole]},
    )

    assert len(dropped(run_dedup(corpus))) == 0
    artifact = run_dedup(corpus, DedupConfig(min_containment=0.8), workers=2)

    assert kept_ids(artifact)["train-00000"] == []
    assert len(kept_ids(artifact)["train-00001"]) == 40
    assert {(row.rule, row.value, row.bound) for row in dropped(artifact)} == {("contained", 1.0, 0.8)}


# ---- texts of all kinds --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "kept"),
    [
        (["cat", "dog", "cat", "one two three four", "one two three five"], [0, 1, 3, 4]),
        (["x"], [0]),
        ([], []),
        (["a  b\n c", "a b c", "a b C"], [0, 2]),
        (["\u2003wide\u2003space", "wide space"], [0]),
    ],
    ids=["short", "one", "none", "white space", "wide white space"],
)
def test_documents_without_shingles_are_compared_word_by_word(
    tmp_path: Path, texts: list[str], kept: list[int]
) -> None:
    corpus = make_filtered(tmp_path, {"train-00000": [("S", text) for text in texts]})

    assert kept_ids(run_dedup(corpus)) == {"train-00000": [f"train-00000:{line}" for line in kept]}


def test_unlike_texts_of_one_template_all_stay(tmp_path: Path) -> None:
    random = Random(21)
    head = random_text(random, 30)
    texts = [f"{head} {random_text(random, 60)}" for _ in range(60)]

    artifact = run_dedup(make_filtered(tmp_path, {"train-00000": [("S", text) for text in texts]}))

    assert not dropped(artifact)


def test_corpus_without_shards_is_deduplicated_to_nothing(tmp_path: Path) -> None:
    assert kept_ids(run_dedup(make_filtered(tmp_path, {}))) == {}
