import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storage.artifacts.records import encode_record
from storage.artifacts.store import Store
from storage.artifacts.upkeep import verify as maintenance
from storage.artifacts.upkeep.verify import verify_store
from storage.artifacts.writer import ArtifactWriter
from tests.unit.storage.stored import (
    MakeArtifact,
    everything,
    folder,
    key,
    lease_of_another_machine,
    run,
    unfinished,
)


@pytest.fixture
def full_store(store: Store, make_artifact: MakeArtifact, tmp_path: Path) -> Store:
    """A store that holds one of everything, all of it whole."""
    corpus = make_artifact(store, "filter", key(1), {"train-00000": b"documents", "val-00000": b"x"})
    make_artifact(store, "train", key(2), inputs={"corpus": corpus}, sources={"mirror": "ff"})
    (tmp_path / "model" / "sub").mkdir(parents=True)
    (tmp_path / "model" / "sub" / "weights").write_bytes(b"\0\1\2")
    ArtifactWriter(store, "publish", key(3)).commit_folder("huggingface", tmp_path / "model")
    store.write_run(run("r1", ("train", 2)))
    store.write_pin("best", "train", key(2))
    lease_of_another_machine(store, "publish", 3, "r1")
    return store


def test_verify_of_a_whole_store_finds_nothing(full_store: Store) -> None:
    assert list(verify_store(full_store)) == []


def test_verify_names_every_file_in_which_a_byte_was_flipped(full_store: Store) -> None:
    before = everything(full_store)
    kinds = {path.split("/")[0] for path in before}
    assert kinds == {"artifacts", "leases", "runs", "pins"}
    assert {"manifest.json", "parts", "data", "reports"} <= {
        path.split("/")[3] for path in before if path.count("/") > 2
    }
    for path, data in before.items():
        flipped = bytearray(data)
        flipped[len(data) // 2] ^= 8
        full_store.backend.write(path, bytes(flipped))
        problems = list(verify_store(full_store))
        assert [problem.path for problem in problems if problem.damage] == [path]
        full_store.backend.write(path, data)
    assert list(verify_store(full_store)) == []


@pytest.mark.parametrize("how", ["missing", "cut", "longer"])
def test_verify_names_every_data_file_that_is_not_whole(full_store: Store, how: str) -> None:
    for path, data in everything(full_store).items():
        if "/data/" in path or "/reports/" in path:
            if how == "missing":
                full_store.backend.delete(path)
            else:
                full_store.backend.write(path, data[:-1] if how == "cut" else data + b"x")
            assert [problem.path for problem in verify_store(full_store)] == [path]
            full_store.backend.write(path, data)


def test_verify_checks_the_files_beside_a_damaged_manifest(full_store: Store) -> None:
    data = next(path for path in full_store.paths(folder("filter", 1)) if "/data/train" in path)
    full_store.backend.write(f"{folder('filter', 1)}/manifest.json", b"{}")
    full_store.backend.write(data, b"DOCUMENTS")
    damaged = [problem.path for problem in verify_store(full_store) if problem.damage]
    assert damaged == [f"{folder('filter', 1)}/manifest.json", data]


def test_verify_of_one_stage_looks_at_no_other(full_store: Store) -> None:
    for path in ("pins/best.json", f"{folder('filter', 1)}/manifest.json", f"{folder('train', 2)}/manifest.json"):
        full_store.backend.write(path, b"{}")
    full_store.backend.write(f"artifacts/train2/{key(1)}/stray", b"x")
    damaged = [problem.path for problem in verify_store(full_store, "train") if problem.damage]
    assert damaged == [f"{folder('train', 2)}/manifest.json"]


def test_verify_lists_files_that_no_record_names_and_calls_them_no_damage(full_store: Store) -> None:
    stray = [f"{folder('filter', 1)}/data/half.bin", f"{folder('train', 9)}/data/x", "artifacts/notes.txt"]
    for path in stray:
        full_store.backend.write(path, b"left by a killed attempt")
    problems = list(verify_store(full_store))
    assert sorted(problem.path for problem in problems) == sorted(stray)
    assert {(problem.kind, problem.damage) for problem in problems} == {("unreferenced", False)}


def test_verify_finds_records_that_contradict_their_place_or_their_files(
    local_store: Store, make_artifact: MakeArtifact
) -> None:
    artifact = make_artifact(local_store, "filter", key(1))
    manifest = artifact.manifest
    at = f"{folder('filter', 1)}/manifest.json"
    for changes, message in (({"content_digest": "0" * 64}, "content digest"), ({"key": key(2)}, "own artifact")):
        local_store.backend.write(at, encode_record(manifest.model_copy(update=changes)))
        assert [(p.path, message in p.message) for p in verify_store(local_store)] == [(at, True)]
    local_store.backend.write(at, encode_record(manifest))
    local_store.write_pin("best", "filter", key(1))
    local_store.write_run(run("r1"))
    for source, target in (("pins/best.json", "pins/b.json"), ("runs/r1.json", "runs/r2.json")):
        local_store.backend.write(target, local_store.backend.read(source))
        assert [p.path for p in verify_store(local_store)] == [target]
        local_store.backend.delete(target)


def test_verify_finds_a_pin_of_what_is_gone(local_store: Store, make_artifact: MakeArtifact) -> None:
    make_artifact(local_store, "filter", key(1))
    local_store.write_pin("best", "filter", key(1))
    for path in local_store.paths("artifacts"):
        local_store.backend.delete(path)
    assert [problem.path for problem in verify_store(local_store)] == ["pins/best.json"]


class Watched:
    """A place for files in which something happens when a file is hashed."""

    def __init__(self, store: Store, event: Callable[[str], object]) -> None:
        self.files = store.backend
        self.event = event

    def __getattr__(self, name: str) -> Any:
        return getattr(self.files, name)

    def digest(self, path: str) -> tuple[int, str]:
        self.event(path)
        return self.files.digest(path)


def test_verify_goes_on_after_a_file_that_the_disk_cannot_read(
    local_store: Store, make_artifact: MakeArtifact
) -> None:
    parts = {f"train-{number:05d}": bytes([number]) for number in range(50)}
    artifact = make_artifact(local_store, "filter", key(1), parts)
    files = [f"{folder('filter', 1)}/{file.path}" for file in artifact.manifest.files]

    def bad_sector(path: str) -> None:
        if path == files[7]:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    local_store.backend.write(files[40], b"?")
    local_store.backend = Watched(local_store, bad_sector)
    problems = list(verify_store(local_store))
    assert [problem.path for problem in problems] == [files[7], files[40]]
    assert "Input/output error" in problems[0].message


def test_verify_does_not_report_what_a_run_at_work_removes(local_store: Store, tmp_path: Path) -> None:
    writer = unfinished(local_store, tmp_path, "train", 1)
    other = Store(local_store.url)
    local_store.backend = Watched(
        local_store, lambda path: ArtifactWriter(other, "train", key(1)).discard("train-00000")
    )
    assert list(verify_store(local_store)) == []
    assert writer.parts() == {}


def test_verify_reads_ahead_a_little_and_not_everything() -> None:
    items = iter(range(100_000))
    with maintenance.ThreadPoolExecutor(2) as pool:
        results = maintenance._in_parallel(pool, lambda item: item, items)
        assert [next(results) for _ in range(100)] == list(range(100))
        assert next(items) < 200
