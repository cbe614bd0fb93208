"""Sizes that follow from one's own files, and a recipe in small."""

import os
from pathlib import Path

import pytest

from flows.command.main import main
from flows.command.parser import build_parser
from flows.command.running.asked import asked
from flows.recipes.reading import find_recipe
from flows.recipes.sizing import Corpus, own_sizes, vocabulary
from flows.recipes.smoke import smoke_changes
from model.training.config import TrainConfig
from storage.errors import InputError
from tasks.download.config import DownloadConfig
from tasks.pack.config import PackConfig


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.command.running.asked.has_gpu", lambda: False)
    monkeypatch.setattr("flows.recipes.smoke.has_gpu", lambda: False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = tmp_path / "my files"
    files.mkdir()
    (files / "a.txt").write_text("words " * 10_000)
    (files / "b.jsonl").write_text('{"text": "words"}\n' * 1000)
    (files / "c.jsonl.gz").write_bytes(b"\0" * 1000)
    return files


def request(*arguments: str) -> object:
    return asked(build_parser().parse_args(arguments), "all")


def test_a_corpus_is_measured_by_names_and_sizes(folder: Path) -> None:
    assert Corpus.measured([str(folder)]) == Corpus(60_000 + 18_000 + 3 * 1000, files=3, text_files=1)


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("text_bytes", [1, 10_000, 1_000_000, 50_000_000, 3_000_000_000, 10**12])
def test_sizes_for_any_amount_of_text_make_a_recipe(text_bytes: int, gpu: bool) -> None:
    sizes = own_sizes(Corpus(text_bytes, 3, 0), {}, gpu=gpu)
    recipe = find_recipe("own-files", sizes)
    train = recipe.section(TrainConfig)
    assert train.warmup_steps < train.max_steps
    assert recipe.section(PackConfig).sequence_length == (1024 if gpu else 256)
    source = recipe.section(DownloadConfig).source
    held_out = source.val_fraction * text_bytes  # type: ignore[attr-defined]
    assert held_out >= min(190_000, 0.09 * text_bytes)


def test_more_text_has_a_larger_vocabulary_and_a_longer_training() -> None:
    sizes = [own_sizes(Corpus(10**n, 3, 0), {}, gpu=True) for n in range(4, 12)]
    for field in ("train_tokenizer.vocab_size", "train.max_steps"):
        values = [size[field] for size in sizes]
        assert values == sorted(values)
        assert values[0] < values[-1]
    assert vocabulary(10**6) == 1024


def test_what_is_given_decides_what_follows_from_it() -> None:
    sizes = own_sizes(Corpus(10**6, 3, 0), {"train.max_steps": 20, "train.model.n_layers": 2}, gpu=False)
    assert "train.max_steps" not in sizes
    assert "train.model" not in sizes
    assert sizes["train.warmup_steps"] == 2


def test_few_text_files_are_divided_into_paragraphs() -> None:
    assert own_sizes(Corpus(10**6, 3, 3), {}, gpu=False)["download.source.text_files"] == "paragraph"
    assert "download.source.text_files" not in own_sizes(Corpus(10**6, 500, 500), {}, gpu=False)
    assert "download.source.text_files" not in own_sizes(Corpus(10**6, 3, 2), {}, gpu=False)


def test_a_folder_on_the_command_line_is_read_with_sizes_that_are_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder.parent)
    found = request("plan", "own-files", "my files", "--set", "train.max_steps=50")
    assert found.overrides["download.source.patterns"] == [str(folder)]  # type: ignore[attr-defined]
    assert found.recipe.section(TrainConfig).max_steps == 50  # type: ignore[attr-defined]
    said = capsys.readouterr().err
    assert "81.0 kB of text on the CPU" in said
    assert "train_tokenizer.vocab_size=1024" in said
    assert max(map(len, said.splitlines())) <= 80


def test_the_command_of_such_a_run_asks_for_the_same_numbers(folder: Path) -> None:
    import shlex

    found = request("plan", "own-files", str(folder))
    again = request(*shlex.split(found.command.replace("pile run", "plan", 1)))  # type: ignore[attr-defined]
    assert again.recipe == found.recipe  # type: ignore[attr-defined]


def test_files_for_a_recipe_that_reads_none_are_refused(folder: Path) -> None:
    with pytest.raises(InputError, match=r"found demo; write `pile plan own-files"):
        request("plan", "demo", str(folder))


def test_files_that_are_not_there_are_said_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["run", "own-files", str(tmp_path / "nothing"), "--store", str(tmp_path / "store")])
    assert end.value.code == 2
    assert os.listdir(tmp_path) == []


# ---- in small -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["demo", "pile", "gpt2-124m", "world-1m", "world-800m", "world-235b"])
def test_every_recipe_has_a_form_in_small(name: str) -> None:
    recipe = find_recipe(name)
    changes, said = smoke_changes(recipe)
    small = find_recipe(name, changes)
    train, asked_for = small.section(TrainConfig), recipe.section(TrainConfig)
    assert train.max_steps <= 10
    assert train.warmup_steps < train.max_steps
    assert train.checkpoint_every < train.max_steps  # a checkpoint is written before the end
    assert train.model.family == asked_for.model.family
    assert small.section(PackConfig) == recipe.section(PackConfig)
    assert small.section(DownloadConfig).sample_share == 0.01
    assert (train.model == asked_for.model) == ("instead of" not in " ".join(s for s in said if "model" in s))


def test_little_text_is_taken_as_it_is_so_that_what_is_wrong_with_it_shows(folder: Path) -> None:
    fields = {"download.source.patterns": [str(folder)], "train_tokenizer.vocab_size": 32768}
    changes, said = smoke_changes(find_recipe("own-files", fields))
    assert "download.sample_share" not in changes
    assert "train_tokenizer.vocab_size" not in changes
    assert "download.source.test_fraction" not in changes
    assert said[0] == "all of the text, which is little"


def test_a_split_that_a_recipe_has_empty_stays_empty() -> None:
    fields = {"download.source.text_bytes": 10**9, "download.source.val_fraction": 0.0}
    changes, _ = smoke_changes(find_recipe("demo", fields))
    assert "download.source.val_fraction" not in changes
    assert changes["download.source.test_fraction"] == 0.05
