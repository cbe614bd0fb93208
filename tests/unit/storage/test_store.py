import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storage.artifacts.records import Run, StoredFile, decode_record, encode_record
from storage.artifacts.store import Store
from storage.errors import CorruptRecordError, InputError
from tests.unit.storage.stored import MakeArtifact, contents

REPOSITORY = Path(__file__).parents[3]


# ---- where files lie -------------------------------------------------------------------------------------------


def test_store_of_a_relative_path_is_the_same_in_a_process_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_artifact: MakeArtifact
) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store("some folder")
    artifact = make_artifact(store, "filter", "0" * 16)
    pickled = pickle.dumps((store, artifact))
    monkeypatch.chdir("/")
    moved_store, moved_artifact = pickle.loads(pickled)
    assert moved_store.find("filter", "0" * 16).manifest == artifact.manifest
    assert contents(moved_artifact) == contents(artifact)


def test_store_that_was_moved_as_a_whole_is_the_same(local_store: Store, make_artifact: MakeArtifact) -> None:
    artifact = make_artifact(local_store, "filter", "0" * 16)
    moved = shutil.move(local_store.url, local_store.url + "-moved")
    found = Store(moved).find("filter", "0" * 16)
    assert found is not None
    assert contents(found) == {file.part: f"filter {'0' * 16}".encode() for file in artifact.manifest.files}


def test_scratch_of_different_stores_on_a_chosen_disk_is_kept_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = [
        Store(str(tmp_path / "a")),
        Store(str(tmp_path / "b")),
        Store("s3://bucket/a"),
        Store("s3://bucket/b"),
    ]
    monkeypatch.delenv("PILE_SCRATCH", raising=False)
    assert stores[0].scratch_root() == tmp_path / "a" / "scratch"
    monkeypatch.setenv("PILE_SCRATCH", str(tmp_path / "fast disk"))
    folders = {store.scratch("filter", "0" * 16) for store in stores}
    assert len(folders) == len(stores)
    assert all(folder.is_relative_to(tmp_path / "fast disk") for folder in folders)


def test_scratch_survives_until_it_is_removed(local_store: Store) -> None:
    (local_store.scratch("filter", "0" * 16) / "half.bin").write_bytes(b"1")
    assert (Store(local_store.url).scratch("filter", "0" * 16) / "half.bin").exists()
    local_store.remove_scratch("filter", "0" * 16)
    local_store.remove_scratch("filter", "0" * 16)
    assert list(local_store.scratch("filter", "0" * 16).iterdir()) == []


# ---- pins and runs ---------------------------------------------------------------------------------------------


def test_pins_are_listed_and_removed(store: Store, make_artifact: MakeArtifact) -> None:
    make_artifact(store, "filter", "a" * 16)
    pin = store.write_pin("best", "filter", "a" * 16)
    assert store.pins() == [pin]
    store.remove_pin("best")
    assert store.pins() == []
    with pytest.raises(InputError, match="best"):
        store.remove_pin("best")


def test_pin_of_what_is_not_there_is_refused(store: Store) -> None:
    with pytest.raises(InputError, match="must name a finished artifact"):
        store.write_pin("best", "filter", "a" * 16)


def test_pin_that_cannot_be_read_is_an_error(store: Store, make_artifact: MakeArtifact) -> None:
    make_artifact(store, "filter", "a" * 16)
    store.write_pin("best", "filter", "a" * 16)
    store.backend.write("pins/best.json", b"{}")
    with pytest.raises(CorruptRecordError, match=r"pins/best\.json"):
        store.pins()


def run(run_id: str, started: str, **fields: Any) -> Run:
    defaults = {
        "recipe_name": "demo",
        "recipe": {},
        "target": "publish",
        "state": "done",
        "stages": (),
        "host": "h",
    }
    return Run(run_id=run_id, started=started, **{**defaults, **fields})


def test_runs_are_listed_oldest_first_whatever_their_names(store: Store) -> None:
    runs = [run("z", "2026-01-01"), run("a", "2026-01-02"), run("m", "2026-01-03")]
    for each in (runs[1], runs[0], runs[2]):
        store.write_run(each)
    assert list(store.runs()) == runs
    store.write_run(runs[0].model_copy(update={"state": "failed"}))
    store.backend.write("runs/a.json", b"damaged")
    assert [(each.run_id, each.state) for each in store.runs()] == [("z", "failed"), ("m", "done")]


def test_manifests_are_listed_oldest_first_and_by_stage(store: Store, make_artifact: MakeArtifact) -> None:
    keys = [("filter", "b" * 16), ("filter2", "a" * 16), ("filter", "a" * 16)]
    for stage, key in keys:
        make_artifact(store, stage, key)
    assert [(manifest.stage, manifest.key) for manifest in store.manifests()] == keys
    assert [manifest.key for manifest in store.manifests("filter")] == ["b" * 16, "a" * 16]


@pytest.mark.parametrize("name", ["..", "a/b", "", "a b"])
def test_names_that_leave_their_folder_are_refused(local_store: Store, name: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: local_store.find("filter", name),
        lambda: local_store.find(name, "0" * 16),
        lambda: local_store.write_run(run(name, "2026")),
        lambda: local_store.remove_pin(name),
        lambda: local_store.lease("filter", name, "run", lambda: None),
        lambda: local_store.remove_scratch("filter", name),
    ]
    for call in calls:
        with pytest.raises(InputError, match="a name in the store must"):
            call()


def test_stored_file_of_a_hostile_store_cannot_leave_its_folder(
    local_store: Store, make_artifact: MakeArtifact
) -> None:
    artifact = make_artifact(local_store, "filter", "0" * 16)
    path = f"artifacts/filter/{'0' * 16}/manifest.json"
    evil = StoredFile.model_construct(part="a", role="text", path="../../../secret", bytes=1, sha256="0" * 64)
    local_store.backend.write(path, encode_record(artifact.manifest.model_copy(update={"files": (evil,)})))
    with pytest.raises(CorruptRecordError, match="relative path"):
        local_store.find("filter", "0" * 16)
    with pytest.raises(CorruptRecordError):
        decode_record(type(artifact.manifest), local_store.backend.read(path), path)


# ---- what importing the store costs ----------------------------------------------------------------------------

HEAVY = ("torch", "prefect", "datatrove", "s3fs", "transformers", "deepspeed", "pyarrow", "botocore", "aiohttp")


@pytest.mark.parametrize(
    "module",
    [
        "storage",
        "storage.config",
        "storage.backends.local",
        "storage.formats.documents",
        "storage.artifacts.lease",
        "storage.artifacts.lineage",
        "storage.artifacts.upkeep.verify",
        "storage.backends.s3",
        "storage.artifacts.store",
        "storage.artifacts.writer",
    ],
)
def test_import_of_storage_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []
