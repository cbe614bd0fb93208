"""What a trial reads, and that its verdicts are those of a run."""

import csv
import gzip
import json
import random
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

import flows.trial.sample
from flows.recipes.reading import find_recipe
from flows.recipes.schema import Recipe
from flows.trial.sample import Sample, take_sample
from flows.trial.verdicts import try_out
from flows.trial.wording import measured
from storage.artifacts.store import Artifact, Store
from storage.errors import InputError
from storage.formats.documents import DOCUMENTS, read_documents
from storage.formats.drops import DROPS, DropRow, read_drops
from tasks.core.execution import Execution
from tasks.core.runner import run_stage
from tasks.core.stage import RunContext
from tests.unit.flows.trials import JUDGES, PROSE, STORY, recipe_of, trial_of, tried, write_jsonl

# ---- the sample ------------------------------------------------------------------------------------------------


def test_sample_is_taken_from_the_beginnings_of_all_files(tmp_path: Path) -> None:
    for name, count in (("a", 3), ("b", 100), ("c", 100)):
        write_jsonl(tmp_path / f"{name}.jsonl", [("Prose", f"{name} {number}") for number in range(count)])
    sample = take_sample(recipe_of(), [str(tmp_path)], limit=23)
    ids = [document.id for document in sample.documents]
    assert ids == [
        f"{name}.jsonl:{n}" for name, count in (("a", 3), ("b", 10), ("c", 10)) for n in range(1, count + 1)
    ]
    assert (sample.files, sample.other_files) == (3, 0)


def test_of_more_files_than_documents_some_are_left_out(tmp_path: Path) -> None:
    for number in range(10):
        write_jsonl(tmp_path / f"{number}.jsonl", [("Prose", "text")] * 5)
    sample = take_sample(recipe_of(), [str(tmp_path)], limit=4)
    assert [document.id for document in sample.documents] == [f"{n}.jsonl:1" for n in (0, 2, 5, 7)]
    assert (sample.files, sample.other_files) == (4, 6)


def test_every_kind_of_file_is_read_as_a_run_reads_it(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("plain")
    (tmp_path / "b.json.gz").write_bytes(gzip.compress(json.dumps([{"content": "of json"}]).encode()))
    with (tmp_path / "c.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["text", "pile_set_name"], ["of csv", "Code"]])
    pq.write_table(pa.table({"body": ["of parquet"], "pile_set_name": ["ArXiv"]}), tmp_path / "d.parquet")
    line = b'{"text": "of jsonl", "meta": {"pile_set_name": "FreeLaw"}}\n'
    (tmp_path / "e.jsonl.zst").write_bytes(zstandard.ZstdCompressor().compress(line))
    sample = take_sample(recipe_of(), [str(tmp_path)], limit=200)
    assert [(document.subset, document.text) for document in sample.documents] == [
        ("unlabelled", "plain"),
        ("unlabelled", "of json"),
        ("Code", "of csv"),
        ("ArXiv", "of parquet"),
        ("FreeLaw", "of jsonl"),
    ]
    as_one = take_sample(recipe_of(), [str(tmp_path)], limit=200, subset="Prose")
    assert {document.subset for document in as_one.documents} == {"Prose"}


def test_recipe_says_where_the_text_is(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"title": "no text", "story": "some text", "kind": "Mine"}\n')
    fields = {"download.source.text_field": "story", "download.source.subset_field": "kind"}
    [document] = take_sample(recipe_of(**fields), [str(tmp_path)], limit=5).documents
    assert (document.subset, document.text) == ("Mine", "some text")
    with pytest.raises(
        InputError, match=r"none but 1 bad record, the first in line 1 of a.jsonl: none of the fields"
    ):
        take_sample(recipe_of(), [str(tmp_path)], limit=5)


def test_recipe_whose_source_reads_no_records_reads_files_as_by_default(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [("Prose", "text")])
    [document] = take_sample(find_recipe("demo"), [str(tmp_path)], limit=5).documents
    assert document.subset == "Prose"


def test_sample_is_bounded_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows.trial.sample, "MOST_BYTES", 1000)
    monkeypatch.setattr(flows.trial.sample, "MOST_BYTES_OF_ONE", 300)
    write_jsonl(tmp_path / "a.jsonl", [("Prose", "x" * 301), *[("Prose", "x" * 100)] * 50])
    write_jsonl(tmp_path / "b.jsonl", [("Prose", "x" * 100)] * 50)
    sample = take_sample(recipe_of(), [str(tmp_path)], limit=90)
    assert [document.id for document in sample.documents] == [
        *(f"a.jsonl:{n}" for n in range(2, 7)),
        *(f"b.jsonl:{n}" for n in range(1, 6)),
    ]
    assert sample.too_large == ["a.jsonl:1"]


# ---- the verdicts ----------------------------------------------------------------------------------------------

CORPUS = [
    ("Prose", STORY),
    ("Prose", "Home.\nNews.\nContact.\n" * 20),
    ("Prose", PROSE * 30),
    ("Code", "x = 1\n" * 20),
    ("Code", "x" * 2000),
    ("My own", "short"),
    ("My own", f"{STORY} And so on."),
    ("Prose", STORY),
    ("Prose", " \n"),
    ("Anything", "1 + 1 = 2"),
    ("Prose", STORY.replace("one-seven ", "other ").replace("six-six ", "other ")),
]


def run_of(recipe: Recipe, target: str, store: Store) -> dict[str, Artifact]:
    """Run the stages of a recipe as `pile run` does."""
    made: dict[str, Artifact] = {}
    for step in recipe.steps(target):
        inputs = {name: made[source] for name, source in step.inputs.items()}
        context = RunContext(store, "run", {}, Execution(workers=1))
        made[step.stage.name] = run_stage(step.stage, step.config, inputs, context).artifact
    return made


def rows_of(artifact: Artifact) -> list[DropRow]:
    return [row for file in artifact.files(DROPS) for row in read_drops(artifact.open(file))]


def kept_by(artifact: Artifact) -> dict[str, str]:
    """Return the split of each document that an artifact holds, by id."""
    files = artifact.files(DOCUMENTS)
    return {each.id: file.part.partition("-")[0] for file in files for each in read_documents(artifact.open(file))}


@pytest.mark.parametrize("held_out", [0.0, 0.3])
def test_verdicts_are_those_of_a_run(held_out: float, tmp_path: Path) -> None:
    chance = random.Random(1)
    stories = [" ".join(chance.choices(STORY.split(), k=100)) for _ in range(40)]
    twins = [story.rpartition(" ")[0] for story in stories]
    longer = [f"{story} {other}" for story, other in zip(stories[:10], stories[10:20], strict=True)]
    corpus = [*CORPUS, *(("My own", text) for text in [*stories, *twins, *longer])]
    file = write_jsonl(tmp_path / "corpus.jsonl", corpus)
    source = {"patterns": [str(file)], "val_fraction": held_out, "test_fraction": held_out}
    recipe = find_recipe(
        "own-files", {**JUDGES, **{f"download.source.{name}": value for name, value in source.items()}}
    )
    made = run_of(recipe, "dedup", Store(str(tmp_path / "store")))
    verdicts = try_out(recipe, take_sample(recipe, [str(file)], limit=200)).verdicts

    assert [each.document.id for each in verdicts] == [f"corpus.jsonl:{n}" for n in range(1, len(corpus) + 1)]
    assert {each.document.id: each.split for each in verdicts if each.drop is None} == kept_by(made["dedup"])
    for stage in ("filter", "dedup"):
        told = {each.drop.id: each.drop for each in verdicts if each.drop and each.stage == stage}
        if stage == "filter":  # what is empty the download has left out before, and counted alike
            assert told.pop("corpus.jsonl:9").reason == "empty"
        rows = {row.id: row for row in rows_of(made[stage])}
        assert told.keys() == rows.keys()
        for name, row in rows.items():
            assert replace(told[name], index=0, twin_index=0, twin_part="") == replace(
                row, index=0, twin_index=0, twin_part=""
            )
    assert len([each for each in verdicts if each.twin]) > 20
    assert any(each.drop.rule == "held-out" for each in verdicts if each.drop) == (held_out > 0)
    for each in verdicts:
        assert (each.twin.id if each.twin else None) == (each.drop.twin_id if each.drop else None)


def test_files_that_are_named_as_splits_are_splits_of_a_mirror(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    write_jsonl(tmp_path / "train" / "00.jsonl", [("Prose", f"Before it. {STORY} And behind it.")])
    write_jsonl(tmp_path / "val.jsonl", [("Prose", STORY)])
    recipe = recipe_of(dedup={"min_similarity": 1.0})
    train, val = try_out(recipe, take_sample(recipe, [str(tmp_path)], limit=9)).verdicts
    assert (train.split, val.split, val.drop) == ("train", "val", None)
    assert train.drop is not None
    assert (train.drop.rule, train.drop.twin_id) == ("held-out", "val.jsonl:1")
    assert measured(train.drop) == "containment 1.00"


def test_policy_and_whether_it_is_only_the_default_are_told() -> None:
    verdicts = tried([("Code", "x = 1"), ("My own", PROSE)])
    assert [(each.policy, each.is_named) for each in verdicts] == [("source", True), ("few", False)]
    changed = tried([("My own", PROSE)], **{"filter.subsets.My own": "running"})
    assert [(each.policy, each.is_named) for each in changed] == [("running", True)]


def test_sample_of_which_nothing_is_kept_is_shown() -> None:
    verdicts = tried([("Code", "x"), ("Code", "y")])
    assert [each.drop.reason for each in verdicts if each.drop] == ["too-short", "too-short"]


def test_nothing_is_left_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("PILE_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    trial_of(CORPUS, dedup={})
    with pytest.raises(AttributeError):
        try_out(recipe_of(), Sample([None], files=1))  # type: ignore[list-item] # whatever goes wrong
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "scratch", tmp_path / "temporary"]


def test_recipe_without_a_filter_is_refused() -> None:
    with pytest.raises(InputError, match="must have the section filter"):
        tried([("Code", "x")], filter=None)


def test_earlier_artifacts_are_not_asked() -> None:
    assert trial_of([("Prose", STORY)], dedup={"against": ["0123456789abcdef"]}).verdicts[0].drop is None
