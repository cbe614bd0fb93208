"""What a trial reads, that its verdicts are those of a run, and that its page shows texts without being one."""

import csv
import gzip
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

import flows.trial.sample
from flows.recipes.reading import find_recipe
from flows.recipes.schema import Recipe
from flows.trial.marking import WHOLE, marked_html
from flows.trial.page import page
from flows.trial.sample import Sample, take_sample
from flows.trial.verdicts import Trial, Verdict, try_out
from flows.trial.wording import measured
from storage.artifacts.store import Artifact, Store
from storage.errors import InputError
from storage.formats.documents import DOCUMENTS, Document, read_documents
from storage.formats.drops import DROPS, DropRow, read_drops
from tasks.core.execution import Execution
from tasks.core.runner import run_stage
from tasks.core.stage import RunContext

PROSE = "The cat and the dog sat on the mat, and then they had to be off to the house of the owl. "
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight")
STORY = "This is the story of " + " ".join(f"{first}-{second}" for first in NUMBERS for second in NUMBERS) + "."
HOSTILE = (
    "</pre><script>alert(1)</script><img src=x onerror=alert(2)> \"'&lt; \x00\x1b[31m \u202e abc </mark> " * 3
)


JUDGES: dict[str, object] = {
    "filter.policies.few": {"rules": [{"rule": "length", "min_words": 5}]},
    "filter.policies.source": {"rules": [{"rule": "length", "min_characters": 50}, {"rule": "code"}]},
    "filter.policies.running": {"rules": [{"rule": "gopher-quality"}, {"rule": "gopher-repetition"}]},
    "filter.policies.all": {"rules": [], "near_duplicates": False, "keep_numbers": True},
    "filter.subsets": {"Code": "source", "Prose": "running", "Anything": "all"},
    "filter.default_policy": "few",
}
"""Policies of our own: the defaults may change."""


def write_jsonl(path: Path, documents: Sequence[tuple[str, str]]) -> Path:
    lines = [orjson.dumps({"text": text, "meta": {"pile_set_name": subset}}) for subset, text in documents]
    path.write_bytes(b"\n".join(lines))
    return path


def recipe_of(**overrides: object) -> Recipe:
    return find_recipe("pile", {"dedup": None, **JUDGES, **overrides})


def tried(documents: Sequence[tuple[str, str]], **overrides: object) -> list[Verdict]:
    return trial_of(documents, **overrides).verdicts


def trial_of(documents: Sequence[tuple[str, str]], name: str = "pile", **overrides: object) -> Trial:
    sample = [Document(f"f:{n}", subset, text) for n, (subset, text) in enumerate(documents)]
    return replace(try_out(recipe_of(**overrides), Sample(sample, files=1)), recipe=name)


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


def test_recipe_without_a_filter_is_refused() -> None:
    with pytest.raises(InputError, match="must have the section filter"):
        tried([("Code", "x")], filter=None)


# ---- twins -----------------------------------------------------------------------------------------------------


def test_twin_is_the_kept_document_of_the_filter() -> None:
    longer = f"{STORY} And so on."
    trial = trial_of([("Code", "x"), ("Prose", STORY), ("Code", "y"), ("Prose", longer)], dedup={})
    dropped = trial.verdicts[3]
    assert [each.stage for each in trial.verdicts] == ["filter", "", "filter", "dedup"]
    assert dropped.drop is not None
    assert dropped.twin is not None
    assert (dropped.drop.rule, dropped.twin.id, dropped.twin.text) == ("near", "f:1", STORY)
    assert Page(page(trial)).marks == [STORY[:-1], STORY[:-1]]


def test_equal_texts_are_marked_as_a_whole_however_short() -> None:
    trial = trial_of([("Anything", "1 + 1 = 2"), ("Anything", "1 + 1\n= 2")], dedup={})
    assert Page(page(trial)).marks == ["1 + 1\n= 2", "1 + 1 = 2"]


def test_similarity_is_that_of_the_words_that_are_marked() -> None:
    words = [f"word{number:c}" for number in range(97, 123)]
    texts = [" ".join(words), " ".join([*words[:13], "another", *words[13:]])]
    trial = trial_of([("Anything", STORY), *(("My own", text) for text in texts)], dedup={})
    drop = trial.verdicts[2].drop
    assert drop is not None
    assert drop.value == pytest.approx(18 / 27, abs=1e-6)  # of 22 and 23 runs of five words 18 are common
    assert Page(page(trial)).marks == [" ".join(words[:13]), " ".join(words[13:])] * 2


def test_earlier_artifacts_are_not_asked() -> None:
    assert trial_of([("Prose", STORY)], dedup={"against": ["0123456789abcdef"]}).verdicts[0].drop is None


# ---- the page --------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """The elements of a page, and the texts of its <pre> and <mark>."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, Mapping[str, str | None]]] = []
        self.texts: list[str] = []
        self.marks: list[str] = []
        self.inside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        self.inside.append(tag)
        {"pre": self.texts, "mark": self.marks}.get(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        while self.inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "pre" in self.inside:
            self.texts[-1] += data
        if "mark" in self.inside:
            self.marks[-1] += data


def test_hostile_texts_are_shown_and_nothing_else() -> None:
    documents = [
        ("Code", HOSTILE + "x" * 1001),
        (f"My own{HOSTILE}"[:200], HOSTILE),
        ("Code", "\n\nx = 1\n" * 9),
    ]
    shown = Page(page(trial_of(documents, f"pile{HOSTILE}")))
    names = [tag for tag, _ in shown.tags]
    assert names.count("script") == 1
    assert "img" not in names
    assert names.count("pre") == names.count("details") == 3
    assert not [name for _, attributes in shown.tags for name in attributes if name.startswith("on")]
    assert not [name for _, attributes in shown.tags for name in attributes if name in ("src", "href")]
    texts = [text.translate({0x2400: 0, 0x241B: 0x1B}).removeprefix("\n") for text in shown.texts]
    assert sorted(texts) == sorted(text for _, text in documents)
    assert shown.marks == [(HOSTILE + "x" * 1001).translate({0: 0x2400, 0x1B: 0x241B})]


def test_page_runs_nothing_but_its_own_script() -> None:
    text = page(trial_of([("Code", "x")]))
    [policy] = [a["content"] for tag, a in Page(text).tags if tag == "meta" and "http-equiv" in a]
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_long_text_is_cut_but_where_it_is_marked() -> None:
    text = "a" * 50_000 + "HERE" + "b" * 50_000
    shown = Page(f"<pre>{marked_html(text, [(50_000, 50_004)])}</pre>")
    assert shown.marks == ["HERE"]
    assert len(shown.texts[0]) < WHOLE
    assert "49,400 characters" in shown.texts[0]
    assert "49,800 characters" in shown.texts[0]


def test_long_place_and_many_places_are_cut() -> None:
    one = Page(f"<pre>{marked_html('x' * 1_000_000, [(0, 1_000_000)])}</pre>")
    many = Page(f"<pre>{marked_html('x ' * 100_000, [(n, n + 1) for n in range(0, 200_000, 2)])}</pre>")
    assert len(one.texts[0]) < WHOLE
    assert len(many.texts[0]) < 2 * WHOLE


def test_marked_white_space_is_seen() -> None:
    assert marked_html("a\n\nb", [(1, 3)]) == "a<mark>↵\n↵\n</mark>b"
