"""Which model `pile generate` takes: the one that was finished last, or the one that is named."""

from pathlib import Path

import pytest

from flows.command.models.choosing import Choice, choose_model
from flows.command.store.finding import find_artifact
from storage.artifacts.records import Run, RunStage, encode_record, now
from storage.artifacts.store import Artifact, Store
from storage.artifacts.writer import ArtifactWriter
from storage.errors import CorruptFileError, InputError


def make(store: Store, key: str, recipe: str, finished: str) -> None:
    writer = ArtifactWriter(store, "train", key)
    local = writer.scratch() / "weights"
    local.write_text(key)
    nothing: dict[str, object] = {"config": {}, "inputs": {}, "sources": {}, "libraries": {}}
    made = writer.publish(
        [writer.commit("final", {"weights": local})], version=1, run_id=f"made-{key}", code_commit="", started="",
        seconds=0.0, recipe={"name": recipe}, **nothing,
    )  # fmt: skip
    dated = made.manifest.model_copy(update={"finished": f"2026-01-{finished}T00:00:00.000+00:00"})
    store.backend.write(f"artifacts/train/{key}/manifest.json", encode_record(dated))


def used(store: Store, run_id: str, recipe: str, key: str, state: str = "done") -> None:
    stages = (RunStage(stage="train", key=key, state="cached" if key else "failed"),)
    fields = {"recipe": {}, "target": "all", "host": "h", "started": now()}
    store.write_run(Run(run_id=run_id, recipe_name=recipe, state=state, stages=stages, **fields))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An older demo, a newer model of own files, and a run after both that found the demo finished."""
    store = Store(str(tmp_path / "store"))
    make(store, "old", "demo", "01")
    make(store, "demo", "demo", "02")
    make(store, "own", "own-files", "03")
    used(store, "run-1", "own-files", "own")
    used(store, "run-2", "demo", "demo")
    used(store, "run-3", "big", "", "failed")
    used(store, "run-4", "borrower", "old")
    return store


@pytest.mark.parametrize(
    ("what", "key"),
    [
        (None, "own"),
        ("train", "own"),
        ("own-files", "own"),
        ("demo", "demo"),
        ("run-2", "demo"),
        ("run-4", "old"),
        ("borrower", "old"),
        ("train/old", "old"),
    ],
)
def test_name_leads_to_a_model(store: Store, what: str | None, key: str) -> None:
    assert choose_model(store, what).ref == f"train/{key}"


def test_stage_means_what_was_finished_last_and_not_what_a_run_used_last(store: Store) -> None:
    assert find_artifact(store, "train").ref == "train/own"


@pytest.mark.parametrize("what", ["big", "run-3", "nonsense"])
def test_what_has_no_model_is_refused_with_those_that_have(store: Store, what: str) -> None:
    with pytest.raises(InputError, match=rf"{what}.*those with one: own-files \(run made-own\), demo"):
        choose_model(store, what)


def test_damaged_newest_model_is_an_error_that_names_the_next(store: Store) -> None:
    [data] = store.paths("artifacts/train/own/data")
    store.backend.delete(data)
    with pytest.raises(CorruptFileError, match=r"train/own.*the next newest is train/demo"):
        choose_model(store, None)
    assert choose_model(store, "demo").ref == "train/demo"


def test_model_is_named_with_recipe_run_and_age(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    artifact: Artifact = choose_model(store, None)
    Choice.of(artifact).say()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("model: train/own of recipe own-files, made ")
    assert captured.err.endswith(" days ago by run made-own\n")
