"""The verbs that look at a store: what damage they name, what they still show, what they refuse."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import flows
from flows.command.parser import build_parser
from flows.command.store.finding import find_run
from flows.command.store.show import print_results
from storage.artifacts.records import Run, RunStage, now
from storage.artifacts.store import Artifact, Store
from storage.artifacts.writer import ArtifactWriter
from storage.errors import CorruptRecordError, InputError
from storage.registry import load

KEYS = {"download": "d" * 16, "filter": "f" * 16}


def make_artifact(store: Store, stage: str) -> Artifact:
    writer = ArtifactWriter(store, stage, KEYS[stage])
    local = writer.scratch() / "documents"
    local.write_text(stage)
    part = writer.commit("train-00000", {"documents": local}, counts={"documents": 1})
    nothing = {"config": {}, "inputs": {}, "sources": {}, "recipe": {}, "libraries": {}}
    return writer.publish([part], version=1, run_id="r", code_commit="", started="", seconds=0.0, **nothing)


def write_run(store: Store, run_id: str, recipe: str = "demo") -> None:
    stages = tuple(RunStage(stage=stage, key=key, state="done") for stage, key in KEYS.items())
    fields = {"recipe_name": recipe, "recipe": {}, "target": "filter", "host": "h", "started": now()}
    store.write_run(Run(run_id=run_id, state="done", stages=stages, **fields))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two artifacts, two runs and a pin."""
    store = Store(str(tmp_path / "store"))
    for stage in KEYS:
        make_artifact(store, stage)
    for run_id in ("run-1", "run-2"):
        write_run(store, run_id)
    store.write_pin("kept", "filter", KEYS["filter"])
    return store


def damage(store: Store, path: str) -> None:
    place = Path(store.url) / path
    place.write_bytes(place.read_bytes().replace(b"1", b"2"))


def pile(store: Store, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": str(Path(flows.__file__).parents[1])}
    command = [sys.executable, "-m", "flows.command", *arguments, "--store", store.url]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def call(store: Store | str, *arguments: str) -> int:
    url = store if isinstance(store, str) else store.url
    options = build_parser().parse_args([*arguments, "--store", url])
    code: int = load(options.verb.reference)(options)
    return code


@pytest.mark.parametrize("way", ["manifest", "missing file"])
def test_show_of_a_run_with_a_damaged_artifact_shows_the_others(store: Store, way: str) -> None:
    folder = f"artifacts/download/{KEYS['download']}"
    if way == "manifest":
        damage(store, f"{folder}/manifest.json")
    else:
        [path] = store.paths(f"{folder}/data")
        store.backend.delete(path)
    found = pile(store, "show")
    assert found.returncode == 1
    rows = {line.split()[0]: line for line in found.stdout.splitlines() if line}
    assert rows["download"].endswith("DAMAGED")
    assert rows["filter"].endswith("1 document")
    assert f"{store.url}/{folder}/" in found.stderr
    assert f"`pile verify --store {store.url}` reads all" in found.stderr


def test_show_of_a_sound_run_says_nothing_of_damage(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(store, "show") == 0
    assert "run run-2, recipe demo, done" in capsys.readouterr().out


def test_show_of_a_run_with_a_damaged_record_says_which(store: Store) -> None:
    damage(store, "runs/run-2.json")
    named = pile(store, "show", "run-2")
    assert named.returncode == 1
    assert f"{store.url}/runs/run-2.json must be a run record" in named.stderr
    newest = pile(store, "show")
    assert newest.stdout.startswith("run run-1, ")
    assert f"{store.url}/runs/run-2.json must be a run record" in newest.stderr


def test_show_without_any_readable_run_names_the_damaged_ones(store: Store) -> None:
    for run_id in ("run-1", "run-2"):
        damage(store, f"runs/{run_id}.json")
    with pytest.raises(CorruptRecordError, match=f"{store.url}/runs/run-1.json, {store.url}/runs/run-2.json"):
        call(store, "show")


def test_run_is_found_by_its_id_without_a_look_at_others(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    read = store.backend.read
    monkeypatch.setattr(store.backend, "read", lambda path: (asked.append(path), read(path))[1])
    assert find_run(store, "run-2").run_id == "run-2"
    assert asked == ["runs/run-2.json"]


def test_record_of_another_run_is_not_shown_for_it(store: Store) -> None:
    folder = Path(store.url, "runs")
    shutil.copyfile(folder / "run-1.json", folder / "run-9.json")
    with pytest.raises(CorruptRecordError, match=r"run-9.json must be the record of run-9, found that of run-1"):
        find_run(store, "run-9")


@pytest.mark.parametrize("name", ["old.json", "run-1 (copy).json", "sub/run-1.json"])
def test_run_whose_record_was_renamed_is_found_by_its_id(store: Store, name: str) -> None:
    folder = Path(store.url, "runs")
    (folder / "sub").mkdir()
    (folder / "run-1.json").rename(folder / name)
    assert find_run(store, "run-1").run_id == "run-1"


@pytest.mark.parametrize("verb", ["pin", "lineage"])
def test_a_stage_means_its_result_finished_last_whatever_the_newest_run_took(
    store: Store, verb: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    time.sleep(0.002)  # times of records are milliseconds
    with monkeypatch.context() as patch:
        patch.setitem(KEYS, "filter", "e" * 16)
        newer = make_artifact(store, "filter")
    write_run(store, "run-3")  # takes the older one again
    assert call(store, verb, *(["mine"] if verb == "pin" else []), "filter") == 0
    assert newer.ref in capsys.readouterr().out
    with pytest.raises(SystemExit):
        build_parser().parse_args([verb, "--help"])
    assert "a stage, for its result finished last" in " ".join(capsys.readouterr().out.split())


def test_show_without_runs_says_so(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    make_artifact(store, "download")
    with pytest.raises(
        InputError, match=f"^there is no run in {store.url}; see `pile ls --runs --store {store.url}`"
    ):
        call(store, "show")
    with pytest.raises(
        InputError, match=f"^there is no run 'x' in {store.url}; see `pile ls --runs --store {store.url}`"
    ):
        call(store, "show", "x")


def test_a_misspelt_run_asks_what_was_meant(store: Store) -> None:
    with pytest.raises(InputError, match="did you mean 'demo'"):
        call(store, "show", "dmeo")
    with pytest.raises(InputError, match="did you mean 'evaluate'"):
        call(store, "show", "evalaute")


def test_the_end_of_a_run_leaves_details_to_show(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    writer = ArtifactWriter(store, "evaluate", "e" * 16)
    local = writer.scratch() / "metrics"
    local.write_text("{}")
    rows = {"Samples": [{"prompt": "a"}], "Before you trust": [{"warning": "small"}]}
    part = writer.commit("metrics", {"metrics": local}, counts={})
    nothing = {"config": {}, "inputs": {}, "sources": {}, "recipe": {}, "libraries": {}}
    report = writer.report("tables.json", json.dumps(rows).encode())
    writer.publish(
        [part], reports=[report], version=1, run_id="r", code_commit="", started="", seconds=0.0, **nothing
    )
    run = find_run(store, "run-2")
    stages = (*run.stages, RunStage(stage="evaluate", key="e" * 16, state="done"))
    print_results(store, run.model_copy(update={"stages": stages}))
    brief = capsys.readouterr().out
    assert "Before you trust" in brief
    assert "Samples" not in brief
    assert "details    pile show run-2" in brief
    call(store, "show", "run-2")
    assert "details" not in capsys.readouterr().out


def test_ls_with_a_damaged_pin_lists_artifacts_and_the_other_pins(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    store.write_pin("1-broken", "download", KEYS["download"])
    damage(store, "pins/1-broken.json")
    found = pile(store, "ls")
    assert found.returncode == 0
    rows = {line.split("/")[0]: line for line in found.stdout.splitlines()}
    assert rows["filter"].endswith("kept")
    assert rows["download"].endswith("1 document")
    assert f"{store.url}/pins/1-broken.json must be a pin record" in found.stderr
    assert pile(store, "pin").returncode == 1
    assert pile(store, "pin", "1-broken", "--remove").returncode == 0


@pytest.mark.parametrize("verb", ["ls", "verify", "gc", "show", "pin"])
def test_place_without_a_store_is_refused_and_left_as_it_was(tmp_path: Path, verb: str) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for place in (tmp_path / "none", empty):
        with pytest.raises(InputError, match=f"^there is no store at {place}, "):
            call(str(place), verb)
    assert [*tmp_path.rglob("*")] == [empty]


@pytest.mark.parametrize(
    ("option", "value"),
    [("min-age-hours", "nan"), ("min-age-hours", "inf"), ("min-age-hours", "-1"), ("keep-runs", "-1")],
)
def test_gc_refuses_an_impossible_bound(store: Store, option: str, value: str) -> None:
    before = sorted(Path(store.url).rglob("*"))
    with pytest.raises(InputError, match=f"--{option} must be a number of .* found {value}"):
        call(store, "gc", "--delete", f"--{option}={value}")
    assert sorted(Path(store.url).rglob("*")) == before


def test_pin_without_a_name_is_refused(store: Store) -> None:
    with pytest.raises(InputError, match="must have a name"):
        call(store, "pin", "", "filter")
    with pytest.raises(InputError, match="must have a name"):
        call(store, "pin", "", "--remove")
    assert [pin.name for pin in store.pins()] == ["kept"]


def test_verify_counts_in_the_right_number(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(store, "verify") == 0
    assert capsys.readouterr().out == f"0 damaged files in {store.url}\n"
    damage(store, "runs/run-1.json")
    assert call(store, "verify") == 1
    assert capsys.readouterr().out.endswith(f"\n1 damaged file in {store.url}\n")
