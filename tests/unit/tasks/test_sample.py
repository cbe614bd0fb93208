"""A sample of a corpus: which files, how much of each, and that a run on it is one on real documents."""

import itertools
from pathlib import Path

import pytest

from storage.artifacts.store import Store
from storage.formats.documents import DOCUMENTS, read_documents
from storage.sources.checked_files import SourceFile
from storage.sources.registry import source_config
from tasks.core.execution import Execution
from tasks.core.runner import run_stage
from tasks.core.stage import RunContext
from tasks.download import sample as sample_module
from tasks.download.config import DownloadConfig
from tasks.download.sample import LEAST_HELD_OUT_BYTES, LEAST_TRAIN_BYTES, Sample
from tasks.download.stage import STAGE

MB = 1_000_000


def split_of(name: str) -> str:
    return name.partition("/")[0]


def files(split: str, sizes: list[int]) -> list[SourceFile]:
    return [SourceFile(f"{split}/{n:03}", "", Path("x"), (0, 0), size) for n, size in enumerate(sizes)]


@pytest.mark.parametrize(("share", "train"), [(0.01, 3), (0.001, 1), (0.1, 30), (1.0, 300)])
def test_files_are_chosen_from_each_split_evenly_over_their_order(share: float, train: int) -> None:
    names = [f"train/{n:03}" for n in range(300)] + ["val/000", "test/000"]
    chosen = Sample(share, split_of).choose(names)
    assert [split_of(name) for name in chosen] == ["train"] * train + ["val", "test"]
    places = [names.index(name) for name in chosen if name.startswith("train")]
    gaps = {after - before for before, after in itertools.pairwise(places)}
    assert max(gaps, default=0) - min(gaps, default=0) <= 1


def test_the_sample_is_the_share_of_all_files_whichever_were_chosen() -> None:
    sample = Sample(0.01, split_of)
    sample.choose([f"train/{n:03}" for n in range(30)])
    [cut] = sample.cut("train", files("train", [15_000 * MB]))  # one of thirty: it stands for all
    assert cut.text_bytes == 30 * 15_000 * MB // 100


@pytest.mark.parametrize(("split", "least"), [("train", LEAST_TRAIN_BYTES), ("val", LEAST_HELD_OUT_BYTES)])
def test_a_sample_of_little_text_is_larger_and_never_more_than_all(split: str, least: int) -> None:
    sample = Sample(0.01, split_of)
    sample.choose([f"{split}/000"])
    assert sum(file.text_bytes for file in sample.cut(split, files(split, [10 * least]))) == least
    assert sample.cut(split, files(split, [least // 2])) == files(split, [least // 2])


def test_a_sample_holds_the_first_documents_of_a_file_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample_module, "LEAST_TRAIN_BYTES", 1000)
    lines = [f'{{"text": "document {n} {"x" * 80}"}}' for n in range(1000)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    texts = {}
    for share in (1.0, 0.1):
        source = source_config("files", patterns=(str(tmp_path / "a.jsonl"),), val_fraction=0, test_fraction=0)
        config = DownloadConfig(source=source, sample_share=share)
        context = RunContext(Store(str(tmp_path / f"store-{share}")), "r", {}, Execution(workers=1))
        artifact = run_stage(STAGE, config, {}, context).artifact
        texts[share] = [d.text for f in artifact.files(DOCUMENTS) for d in read_documents(artifact.open(f))]
    assert texts[0.1] == texts[1.0][: len(texts[0.1])]
    assert len(texts[0.1]) in (100, 101)  # the record in which the share ends belongs to it


def test_small_files_are_joined_by_more_of_them_until_there_is_enough() -> None:
    names = [f"train/{n:03}" for n in range(1000)]
    sizes = dict.fromkeys(names, 10_000)
    sample = Sample(0.01, split_of)
    chosen = [SourceFile(name, "", Path("x"), (0, 0), sizes[name]) for name in sample.choose(names)]
    assert len(chosen) == 10
    while sample.widen(chosen):
        chosen = [SourceFile(name, "", Path("x"), (0, 0), sizes[name]) for name in sample.choose(names)]
    assert sum(file.text_bytes for file in sample.cut("train", chosen)) == LEAST_TRAIN_BYTES


def test_a_corpus_that_holds_too_little_is_taken_whole() -> None:
    names = [f"train/{n:03}" for n in range(20)]
    sample = Sample(0.01, split_of)
    chosen = [SourceFile(name, "", Path("x"), (0, 0), 100) for name in sample.choose(names)]
    while sample.widen(chosen):
        chosen = [SourceFile(name, "", Path("x"), (0, 0), 100) for name in sample.choose(names)]
    assert len(chosen) == 20
