import contextlib
import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storage.artifacts.store import Store
from storage.artifacts.upkeep.gc import collect, plan_garbage
from storage.artifacts.writer import ArtifactWriter
from storage.errors import CorruptRecordError, InputError
from tests.unit.storage.stored import (
    NEWER,
    MakeArtifact,
    age,
    everything,
    folder,
    key,
    lease_of_another_machine,
    newer,
    paths,
    run,
)


@pytest.mark.parametrize("what", ["pin", "run", "manifest"])
def test_gc_stops_at_a_record_that_might_protect_something_and_cannot_be_read(
    store: Store, make_artifact: MakeArtifact, what: str
) -> None:
    corpus = make_artifact(store, "filter", key(1))
    make_artifact(store, "train", key(1), inputs={"corpus": corpus})
    make_artifact(store, "train", key(2))
    store.write_pin("best", "train", key(1))
    store.write_run(run("r1", ("train", 2)))
    path = {"pin": "pins/best.json", "run": "runs/r1.json", "manifest": f"{folder('train', 1)}/manifest.json"}[
        what
    ]
    store.backend.write(path, b"{}")
    before = everything(store)
    with pytest.raises(CorruptRecordError, match=path):
        plan_garbage(store, keep_runs=0)
    assert everything(store) == before


def test_gc_stops_when_the_pins_cannot_be_listed(
    local_store: Store, make_artifact: MakeArtifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_artifact(local_store, "filter", key(1))
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if str(path).endswith("pins"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError):
        plan_garbage(local_store)


@pytest.mark.parametrize(("keep_runs", "age_seconds"), [(-1, 0), (0, -1)])
def test_gc_with_impossible_limits_is_refused(local_store: Store, keep_runs: int, age_seconds: float) -> None:
    with pytest.raises(InputError, match="must not be negative"):
        plan_garbage(local_store, keep_runs, age_seconds)


def pin_it(store: Store, tmp_path: Path, make_artifact: MakeArtifact) -> None:
    store.write_pin("best", "train", key(1))


def lease_it(store: Store, tmp_path: Path, make_artifact: MakeArtifact) -> None:
    lease_of_another_machine(store, "filter", 1, "r1")
    store.write_run(run("r1"))


def read_it(store: Store, tmp_path: Path, make_artifact: MakeArtifact) -> None:
    lease_of_another_machine(store, "evaluate", 1, "r1")
    store.write_run(run("r1", ("filter", 1)))


def reuse_it(store: Store, tmp_path: Path, make_artifact: MakeArtifact) -> None:
    store.write_run(run("r1", ("filter", 1), state="running"))


def rebuild_it(store: Store, tmp_path: Path, make_artifact: MakeArtifact) -> None:
    time.sleep(0.01)
    make_artifact(store, "filter", key(1))


@pytest.mark.parametrize("use", [pin_it, lease_it, read_it, reuse_it, rebuild_it], ids=lambda use: use.__name__)
def test_gc_spares_what_has_come_into_use_since_it_was_planned(
    local_store: Store, make_artifact: MakeArtifact, tmp_path: Path, use: Callable[..., None]
) -> None:
    corpus = make_artifact(local_store, "filter", key(1))
    make_artifact(local_store, "train", key(1), inputs={"corpus": corpus})
    make_artifact(local_store, "train", key(2))
    newer(local_store, make_artifact, "filter", "train")
    garbage = plan_garbage(local_store, min_age_seconds=0)
    assert paths(garbage) == [folder("filter", 1), folder("train", 1), folder("train", 2)]
    use(local_store, tmp_path, make_artifact)
    collect(local_store, garbage)
    assert local_store.find("filter", key(1)) is not None
    assert local_store.find("train", key(2)) is None


def test_gc_spares_scratch_and_leases_that_came_into_use_since_it_was_planned(
    local_store: Store,
) -> None:
    path = lease_of_another_machine(local_store, "filter", 1, "r1", expired=True)
    (local_store.scratch("train", key(1)) / "half.bin").write_bytes(b"half")
    age(local_store)
    garbage = plan_garbage(local_store)
    assert len(garbage) == 2
    lease_of_another_machine(local_store, "filter", 1, "r2")
    local_store.write_run(run("r2"))
    (local_store.scratch("train", key(1)) / "half.bin").write_bytes(b"more")
    assert collect(local_store, garbage) == 0
    assert local_store.paths("leases") == [path]
    assert (local_store.scratch("train", key(1)) / "half.bin").read_bytes() == b"more"


def test_gc_that_is_cut_off_leaves_artifacts_unfinished_and_never_damaged(
    tmp_path: Path, make_artifact: MakeArtifact
) -> None:
    class Killed(BaseException):
        pass

    for deletions in range(8):
        store = Store(str(tmp_path / f"store{deletions}"))
        make_artifact(store, "filter", key(1), {"a": b"1", "b": b"2"})
        newer(store, make_artifact, "filter")
        garbage = plan_garbage(store, min_age_seconds=0)
        alive, left = store.backend, iter(range(deletions))

        class Dying:
            def __getattr__(self, name: str, alive: Any = alive, left: Any = left) -> Any:
                if name == "delete" and next(left, None) is None:
                    raise Killed
                return getattr(alive, name)

        store.backend = Dying()
        with contextlib.suppress(Killed):
            collect(store, garbage)
        store.backend = alive
        assert (store.find("filter", key(1)) is None) == (deletions > 0)
        writer = ArtifactWriter(store, "filter", key(1))
        assert all(writer.open(file).exists() for part in writer.parts().values() for file in part.files)
        collect(store, plan_garbage(store, min_age_seconds=0))
        assert {path.split("/")[2] for path in store.paths("artifacts")} == {key(NEWER)}
