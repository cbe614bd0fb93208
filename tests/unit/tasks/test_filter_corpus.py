import json
from collections import Counter
from pathlib import Path
from random import Random

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tasks.filter.shards
from storage.artifacts.store import Artifact
from storage.artifacts.writer import ArtifactWriter
from storage.errors import InputError
from storage.formats.documents import Document, read_documents
from storage.formats.shingles import read_layout, read_shingles
from storage.notice import NOTICE
from tasks.core.context import TABLES
from tasks.filter.rules.base import KEEP, Judgement, Rewrite, Rule, RuleConfig
from tasks.filter.rules.registry import rule_config
from tasks.filter.rules.view import DocumentView
from tasks.filter.shards import SAMPLE_CHARACTERS, SAMPLES, FilterShard
from tasks.filter.words import DocumentWords
from tests.unit.tasks.filtering import CONFIG, PAIRS, make_corpus, run_filter

texts = st.sampled_from(
    [
        "The cat and the dog sat on the mat, and then they had to be off.",
        "the of and",
        "no stop words here at all, only five",
        "# # # # # of",
        "x" * 200,
        "def f():\n    return 1\n",
        "{}[]()",
        "  ",
        "Один два три четыре пять шесть",
        "abc",
    ]
)
documents = st.lists(st.tuples(st.sampled_from(["Books", "Program.Source", "New one", ""]), texts), max_size=25)


def kept_documents(artifact: Artifact) -> dict[str, list[Document]]:
    return {file.part: list(read_documents(artifact.open(file))) for file in artifact.files("documents")}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(documents, st.randoms(use_true_random=False))
def test_counts_of_any_corpus_add_up_per_subset(
    tmp_path: Path, pairs: list[tuple[str, str]], random: Random
) -> None:
    folder = tmp_path / str(random.getrandbits(64))
    corpus = make_corpus(folder, {"train-00000": pairs})
    writer = ArtifactWriter(corpus.store, "filter", "1" * 16)
    for shard in corpus.files("documents"):
        FilterShard(CONFIG, corpus, writer)(shard)
    part = writer.parts()["train-00000"]
    counts = part.counts
    kept = list(read_documents(writer.open(part.files[0])))

    assert counts["documents"] + counts["dropped"] == len(pairs)
    assert counts["documents"] == len(kept)
    assert counts["text_bytes"] == sum(len(document.text.encode()) for document in kept)
    unknown = {
        subset: n for subset, n in Counter(subset for subset, _ in pairs).items() if subset in ("New one", "")
    }
    assert {k: v for k, v in counts.items() if k.startswith("unknown")} == {
        f"unknown_subset.{subset}": n for subset, n in unknown.items()
    }
    for subset, documents_in in Counter(subset for subset, _ in pairs).items():
        dropped = sum(n for name, n in counts.items() if name.rpartition(".")[0] == f"dropped.{subset}")
        assert counts.get(f"documents.{subset}", 0) + dropped == documents_in
    # What is kept comes through unchanged and in order.
    texts_in = [(f"train-00000:{line}", *pair) for line, pair in enumerate(pairs)]
    assert [item for item in texts_in if item[0] in {d.id for d in kept}] == [
        (d.id, d.subset, d.text) for d in kept
    ]
    assert all(document.meta == {"line": int(document.id.rpartition(":")[2])} for document in kept)


def test_every_split_is_filtered_by_the_policy_of_each_subset(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path, {"train-00000": PAIRS * 2, "test-00000": PAIRS, "val-00000": PAIRS[1:2]})

    artifact = run_filter(corpus)

    kept = kept_documents(artifact)
    assert list(kept) == ["train-00000", "test-00000", "val-00000"]
    assert [document.text for document in kept["test-00000"]] == [PAIRS[0][1], PAIRS[2][1], PAIRS[4][1]]
    assert kept["val-00000"] == []  # still a part, with a shard of no documents
    assert artifact.counts["dropped.Books.gopher_short_doc"] == 4
    assert artifact.counts["dropped.Program.Source.long-line"] == 3
    assert artifact.counts["dropped.New one.too-short"] == 3
    assert artifact.counts["unknown_subset.New one"] == 6


class Shout(Rule[RuleConfig]):
    """Rewrites in capital letters."""

    @classmethod
    def examples(cls) -> tuple[RuleConfig, list[tuple[str, Judgement]]]:
        return rule_config("length"), []

    def judge(self, view: DocumentView) -> Judgement:
        return KEEP if view.text.isupper() else Rewrite(view.text.upper())


def test_rewritten_text_is_what_is_kept_counted_and_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks.filter.shards, "make_rule", Shout)
    corpus = make_corpus(tmp_path, {"train-00000": [("New one", "straße"), ("Books", "OVER")]})
    writer = ArtifactWriter(corpus.store, "filter", "1" * 16)
    for shard in corpus.files("documents"):
        FilterShard(CONFIG, corpus, writer)(shard)
    part = writer.parts()["train-00000"]
    files = {file.role: file for file in part.files}

    assert [document.text for document in read_documents(writer.open(files["documents"]))] == ["STRASSE", "OVER"]
    assert part.counts["text_bytes"] == len("STRASSEOVER")
    [rows] = read_shingles(writer.open(files["shingles"]))
    assert rows.exact.tobytes() == DocumentWords("STRASSE").exact_hash() + DocumentWords("OVER").exact_hash()


def test_shingles_stand_beside_the_kept_documents_in_their_order(tmp_path: Path) -> None:
    artifact = run_filter(make_corpus(tmp_path, {"train-00000": PAIRS, "val-00000": [("Books", "no")]}))

    for documents_file, shingle_file in zip(artifact.files("documents"), artifact.files("shingles"), strict=True):
        kept, path = list(read_documents(artifact.open(documents_file))), artifact.open(shingle_file)
        words = [DocumentWords(document.text) for document in kept]
        [rows] = read_shingles(path)
        assert read_layout(path) == (CONFIG.shingles, len(kept))
        table = pq.read_table(path, columns=["id", "subset"])
        assert table.column("id").to_pylist() == [d.id for d in kept]
        assert table.column("subset").to_pylist() == [d.subset for d in kept]
        assert rows.exact.tobytes() == b"".join(found.exact_hash() for found in words)
        assert rows.near.tolist() == [document.subset != "Program.Source" for document in kept]
        for begin, end, found in zip(rows.ends[:-1], rows.ends[1:], words, strict=True):
            assert rows.shingles[begin:end].tolist() == found.shingles(3).tolist()


def test_subset_without_policy_is_named_where_one_sees_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(NOTICE):
        run_filter(make_corpus(tmp_path, {"train-00000": PAIRS}))

    [said] = [r.getMessage() for r in caplog.records if "filter.subsets" in r.getMessage() and r.levelno >= NOTICE]
    assert "New one" in said
    assert "Books" not in said


def test_reports_show_what_was_dropped_and_why(tmp_path: Path) -> None:
    long_text = ("Books", "word" * 1000)
    corpus = make_corpus(tmp_path, {f"train-{n:05d}": [*PAIRS, *[long_text] * 9] for n in range(2)})

    artifact = run_filter(corpus)

    tables = json.loads(artifact.report(TABLES) or b"")
    rows = {row["subset"]: row for row in tables["Dropped"]}
    assert rows["Books"] == {
        "subset": "Books",
        "documents in": 22,
        "kept": 2,
        "dropped": 20,
        "dropped by reason": "gopher_short_doc 20",
    }
    assert rows["all"]["documents in"] == 30
    samples = [json.loads(line) for line in (artifact.report("dropped_samples.jsonl") or b"").splitlines()]
    assert max(len(sample["text"]) for sample in samples) == SAMPLE_CHARACTERS
    assert Counter(sample["part"] for sample in samples if sample["reason"] == "gopher_short_doc") == {
        "train-00000": SAMPLES,
        "train-00001": SAMPLES,
    }
    assert {"subset": "Program.Source", "reason": "long-line", "id": "train-00001:3", "text": "z" * 100} in [
        {name: sample[name] for name in ("subset", "reason", "id", "text")} for sample in samples
    ]
    assert {sample["value"] for sample in samples if sample["reason"] == "long-line"} == {100}


def test_corpus_of_which_nothing_is_kept_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gopher_short_doc 2"):
        run_filter(make_corpus(tmp_path, {"train-00000": [PAIRS[1]], "val-00000": [PAIRS[1]]}))


def test_two_workers_write_the_bytes_of_one(tmp_path: Path) -> None:
    shards = {f"train-{n:05d}": PAIRS * n for n in range(5)} | {"val-00000": PAIRS}

    one = run_filter(make_corpus(tmp_path / "one", shards), workers=1)
    two = run_filter(make_corpus(tmp_path / "two", shards), workers=2)

    assert one.content_digest == two.content_digest
    assert one.counts == two.counts
    assert one.report("dropped_samples.jsonl") == two.report("dropped_samples.jsonl")


def test_resumed_filter_does_only_what_is_missing(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path, {f"train-{n:05d}": PAIRS * (n + 1) for n in range(4)})
    whole = run_filter(corpus)
    folder = f"artifacts/filter/{whole.manifest.key}"
    corpus.store.backend.delete(f"{folder}/manifest.json")  # as if it had been killed
    corpus.store.backend.delete(f"{folder}/parts/train-00002.json")

    resumed = run_filter(corpus)

    assert resumed.content_digest == whole.content_digest
    assert resumed.counts == whole.counts
    assert resumed.report("dropped_samples.jsonl") == whole.report("dropped_samples.jsonl")
    redone = {
        new.part for old, new in zip(whole.manifest.files, resumed.manifest.files, strict=True) if old != new
    }
    assert redone == {"train-00002"}
