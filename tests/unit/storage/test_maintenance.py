import contextlib
import errno
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.artifacts import verify as maintenance
from storage.artifacts.gc import Garbage, collect, plan_garbage
from storage.artifacts.lease import Lease
from storage.artifacts.records import LeaseRecord, Run, RunStage, StageState, encode_record
from storage.artifacts.store import Artifact, Store
from storage.artifacts.verify import verify_store
from storage.artifacts.writer import ArtifactWriter
from storage.errors import CorruptRecordError, InputError

MakeArtifact = Callable[..., Artifact]
DAY = 86400.0


def key(number: int) -> str:
    return f"{number:016x}"


def folder(stage: str, number: int) -> str:
    return f"artifacts/{stage}/{key(number)}"


def run(run_id: str, *stages: tuple[str, int], state: str = "done", recipe: str = "demo") -> Run:
    """The record of a run that named these artifacts; number -1: begun, and not known under which key."""
    return Run(
        run_id=run_id,
        recipe_name=recipe,
        recipe={},
        target="publish",
        state=state,
        stages=tuple(_run_stage(stage, number) for stage, number in stages),
        host="h",
        started=run_id,
    )


def _run_stage(stage: str, number: int) -> RunStage:
    state: StageState = "running" if number < 0 else "done"
    return RunStage(stage=stage, key="" if number < 0 else key(number), state=state)


def lease_of_another_machine(store: Store, stage: str, number: int, run_id: str, *, expired: bool = False) -> str:
    path = f"leases/{stage}/{key(number)}.json"
    expires = time.time() + (-1e6 if expired else 1e6)
    record = LeaseRecord(
        holder="h", run_id=run_id, host="elsewhere", process_id=1, process_start="1", renewals=1, expires=expires
    )
    store.backend.write(path, encode_record(record))
    return path


def unfinished(store: Store, tmp_path: Path, stage: str, number: int) -> ArtifactWriter:
    """An attempt that was killed after its first part."""
    writer = ArtifactWriter(store, stage, key(number))
    local = tmp_path / f"{uuid.uuid4().hex}.bin"
    local.write_bytes(b"first part")
    writer.commit("train-00000", {"documents": local})
    return writer


def age(store: Store, below: str = "", seconds: float = 10 * DAY) -> None:
    """Make files of a local store look as if they had not been touched for ten days."""
    then = time.time() - seconds
    root = Path(store.url, below)
    for path in (root, *root.rglob("*")):
        os.utime(path, (then, then), follow_symlinks=False)


def everything(store: Store) -> dict[str, bytes]:
    return {path: store.backend.read(path) for path in store.paths("")}


def paths(garbage: list[Garbage]) -> list[str]:
    return [item.path for item in garbage]


# ---- verify ------------------------------------------------------------------------------------------------


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


# ---- what is kept ------------------------------------------------------------------------------------------


def test_gc_keeps_what_a_pin_was_made_from_and_collects_the_rest(
    store: Store, make_artifact: MakeArtifact
) -> None:
    download = make_artifact(store, "download", key(1))
    corpus = make_artifact(store, "filter", key(1), inputs={"corpus": download})
    model = make_artifact(store, "train", key(1), inputs={"sequences": corpus})
    make_artifact(store, "train", key(2), inputs={"sequences": corpus})
    make_artifact(store, "filter", key(2), inputs={"corpus": download})
    store.write_pin("best", "train", key(1))
    before = everything(store)
    garbage = plan_garbage(store)
    assert everything(store) == before
    assert paths(garbage) == [folder("filter", 2), folder("train", 2)]
    size = sum(len(data) for path, data in before.items() if path.startswith(tuple(paths(garbage))))
    assert collect(store, garbage) == sum(item.bytes for item in garbage) == size
    assert {(manifest.stage, manifest.key) for manifest in store.manifests()} == {
        ("download", key(1)),
        ("filter", key(1)),
        ("train", key(1)),
    }
    assert list(verify_store(store)) == []
    assert store.find("train", key(1)) == model
    assert plan_garbage(store) == []


REFS = [("download", 1), ("download", 2), ("filter", 1), ("filter", 2), ("train", 1), ("train", 2), ("publish", 1)]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_gc_keeps_exactly_what_can_be_reached(
    tmp_path: Path, make_artifact: MakeArtifact, data: st.DataObject
) -> None:
    store = Store(str(tmp_path / uuid.uuid4().hex))
    upstream: dict[tuple[str, int], list[tuple[str, int]]] = {}
    artifacts = {}
    for stage, number in data.draw(st.permutations(REFS)):
        inputs = data.draw(st.lists(st.sampled_from(list(upstream)), max_size=2, unique=True)) if upstream else []
        upstream[stage, number] = inputs
        refs = {f"input{index}": artifacts[ref] for index, ref in enumerate(inputs)}
        artifacts[stage, number] = make_artifact(store, stage, key(number), inputs=refs)
    some = st.lists(st.sampled_from(REFS), max_size=2, unique=True)
    pinned = data.draw(some, label="pinned")
    for index, (stage, number) in enumerate(pinned):
        store.write_pin(f"pin{index}", stage, key(number))
    runs = data.draw(st.lists(st.tuples(st.sampled_from(["demo", "big"]), some), max_size=4), label="runs")
    for index, (recipe, refs_of_run) in enumerate(runs):
        store.write_run(run(f"r{index}", *refs_of_run, recipe=recipe))
    keep_runs = data.draw(st.integers(0, 2), label="keep")

    reachable = set(pinned)
    for recipe in ("demo", "big"):
        newest = [refs_of_run for name, refs_of_run in runs if name == recipe][::-1][:keep_runs]
        reachable |= {ref for refs_of_run in newest for ref in refs_of_run}
    while not reachable >= (more := {above for ref in reachable for above in upstream[ref]}):
        reachable |= more

    collect(store, plan_garbage(store, keep_runs))
    assert {(manifest.stage, int(manifest.key, 16)) for manifest in store.manifests()} == reachable
    assert [problem for problem in verify_store(store) if problem.damage] == []
    assert len(list(store.runs())) == len(runs)


def test_gc_keeps_what_a_running_run_has_just_finished(local_store: Store, make_artifact: MakeArtifact) -> None:
    make_artifact(local_store, "filter", key(1))
    local_store.write_run(run("r0", ("filter", 1), ("train", -1), state="running"))
    for later in range(1, 5):
        local_store.write_run(run(f"r{later}"))
    assert plan_garbage(local_store) == []
    age(local_store, "runs/r0.json")  # it was killed ten days ago
    assert paths(plan_garbage(local_store)) == [folder("filter", 1)]


def test_gc_keeps_what_the_holder_of_a_lease_reads(
    local_store: Store, make_artifact: MakeArtifact, tmp_path: Path
) -> None:
    # It trains for weeks, and newer runs of its recipe have long finished.
    make_artifact(local_store, "filter", key(1))
    unfinished(local_store, tmp_path, "train", 1)
    local_store.write_run(run("r0", ("filter", 1), ("train", -1), state="running"))
    for later in range(1, 5):
        local_store.write_run(run(f"r{later}"))
    lease_of_another_machine(local_store, "train", 1, "r0")
    age(local_store)
    assert plan_garbage(local_store) == []


def test_gc_keeps_all_artifacts_while_a_run_without_a_record_is_at_work(
    local_store: Store, make_artifact: MakeArtifact, tmp_path: Path
) -> None:
    make_artifact(local_store, "filter", key(1))
    unfinished(local_store, tmp_path, "train", 1)
    unfinished(local_store, tmp_path, "train", 2)
    path = lease_of_another_machine(local_store, "train", 1, "from-a-notebook")
    age(local_store)
    assert paths(plan_garbage(local_store)) == [folder("train", 2)]
    local_store.backend.write(path, b"{}")  # whose it is cannot be read: perhaps that of a newer release
    assert paths(plan_garbage(local_store)) == [folder("train", 2)]
    age(local_store)
    local_store.backend.delete(path)
    assert paths(plan_garbage(local_store)) == [folder("filter", 1), folder("train", 1), folder("train", 2)]


def test_gc_keeps_the_lease_of_a_process_at_work(local_store: Store, make_artifact: MakeArtifact) -> None:
    make_artifact(local_store, "filter", key(1))
    lease: Lease = local_store.lease("filter", key(1), "r", lambda: None)
    assert lease.try_acquire() is None
    age(local_store)
    assert plan_garbage(local_store) == []
    lease.release()
    assert paths(plan_garbage(local_store)) == [folder("filter", 1)]


def test_gc_leaves_unfinished_artifacts_for_a_while(local_store: Store, tmp_path: Path) -> None:
    unfinished(local_store, tmp_path, "train", 1)
    assert plan_garbage(local_store) == []
    age(local_store)
    garbage = plan_garbage(local_store)
    assert paths(garbage) == [folder("train", 1)]
    collect(local_store, garbage)
    assert local_store.paths("artifacts") == []


def test_gc_leaves_unfinished_artifacts_of_a_stage_that_a_kept_run_has_begun(
    local_store: Store, tmp_path: Path
) -> None:
    unfinished(local_store, tmp_path, "train", 1)
    local_store.write_run(run("r0", ("train", -1), state="failed"))
    age(local_store)
    assert plan_garbage(local_store, keep_runs=1) == []
    local_store.write_run(run("r1"))
    assert paths(plan_garbage(local_store, keep_runs=1)) == [folder("train", 1)]


# ---- what is collected -------------------------------------------------------------------------------------


def test_gc_collects_old_files_that_no_record_names(
    local_store: Store, make_artifact: MakeArtifact, tmp_path: Path
) -> None:
    make_artifact(local_store, "filter", key(1))
    local_store.write_pin("best", "filter", key(1))
    unfinished(local_store, tmp_path, "train", 1)
    local_store.write_run(run("r0", ("train", -1), state="failed"))
    whole = local_store.paths("artifacts")
    left = [f"{folder('filter', 1)}/data/half.bin", f"{folder('train', 1)}/data/half.bin"]
    for path in left:
        local_store.backend.write(path, b"half")
    assert plan_garbage(local_store) == []
    age(local_store)
    garbage = plan_garbage(local_store)
    assert paths(garbage) == left
    lease_of_another_machine(local_store, "train", 1, "r0")
    assert paths(plan_garbage(local_store)) == left[:1]
    assert collect(local_store, garbage) == 4
    assert set(local_store.paths("artifacts")) == {*whole, left[1]}


def test_gc_collects_the_files_of_a_result_that_was_rebuilt(
    local_store: Store, make_artifact: MakeArtifact
) -> None:
    old = make_artifact(local_store, "filter", key(1), {"a": b"old"})
    ArtifactWriter(local_store, "filter", key(1)).forget_parts()
    new = make_artifact(local_store, "filter", key(1), {"a": b"new"})
    local_store.write_pin("best", "filter", key(1))
    age(local_store)
    garbage = plan_garbage(local_store)
    names = [*old.manifest.files, *old.manifest.reports]
    assert sorted(paths(garbage)) == sorted(f"{folder('filter', 1)}/{file.path}" for file in names)
    collect(local_store, garbage)
    assert local_store.find("filter", key(1)) == new
    assert list(verify_store(local_store)) == []


def test_gc_leaves_the_files_beside_a_part_record_that_cannot_be_read(local_store: Store, tmp_path: Path) -> None:
    writer = unfinished(local_store, tmp_path, "train", 1)
    local_store.write_run(run("r0", ("train", -1), state="failed"))
    local_store.backend.write(f"{writer.folder}/parts/train-00000.json", b"{}")
    age(local_store)
    assert plan_garbage(local_store) == []


def test_gc_collects_leases_whose_holders_are_gone(store: Store) -> None:
    stale = lease_of_another_machine(store, "filter", 1, "r1", expired=True)
    lease_of_another_machine(store, "filter", 2, "r2")
    garbage = plan_garbage(store)
    assert paths(garbage) == [stale]
    collect(store, garbage)
    assert store.paths("leases") == [f"leases/filter/{key(2)}.json"]


def test_gc_collects_a_lease_that_nobody_could_read_for_long(local_store: Store) -> None:
    local_store.backend.write(f"leases/filter/{key(1)}.json", b"{}")
    assert plan_garbage(local_store) == []
    age(local_store)
    assert paths(plan_garbage(local_store)) == [f"leases/filter/{key(1)}.json"]


def test_gc_collects_writes_and_scratch_that_were_left_behind(local_store: Store, tmp_path: Path) -> None:
    writer = unfinished(local_store, tmp_path, "train", 1)
    lease_of_another_machine(local_store, "train", 1, "r1")
    local_store.write_run(run("r1", state="running"))
    for number in (1, 2, 3):
        (local_store.scratch("train", key(number)) / "half.bin").write_bytes(b"half")
    (local_store.fetched_root()).mkdir()
    (local_store.fetched_root() / "0f").write_bytes(b"copy")
    local_store.backend.write("scratch/writes/0a", b"cut off")
    assert plan_garbage(local_store) == []
    age(local_store)
    (local_store.scratch("train", key(3)) / "fresh.bin").write_bytes(b"fresh")
    scratch = Path(local_store.url, "scratch")
    garbage = plan_garbage(local_store)
    assert {item.path: item.bytes for item in garbage} == {
        "scratch/writes/0a": 7,
        str(scratch / f"train-{key(2)}"): 4,
        str(scratch / "fetched" / "0f"): 4,
    }
    collect(local_store, garbage)
    assert sorted(path.name for path in scratch.iterdir()) == [
        "fetched",
        f"train-{key(1)}",
        f"train-{key(3)}",
        "writes",
    ]
    assert set(writer.parts()) == {"train-00000"}


def test_gc_leaves_copies_of_remote_files_that_are_in_use(s3_url: str, make_artifact: MakeArtifact) -> None:
    store = Store(s3_url)
    used = make_artifact(store, "filter", key(1), {"a": b"used"})
    unused = make_artifact(store, "filter", key(2), {"a": b"unused"})
    store.write_pin("one", "filter", key(1))
    store.write_pin("two", "filter", key(2))
    copy_of_unused = unused.open(unused.manifest.files[0])
    for copy in (copy_of_unused, used.open(used.manifest.files[0])):
        os.utime(copy, (0, 0))
    used.open(used.manifest.files[0])
    garbage = plan_garbage(store)
    assert paths(garbage) == [str(copy_of_unused)]
    collect(store, garbage)
    assert not copy_of_unused.exists()
    assert unused.open(unused.manifest.files[0]).read_bytes() == b"unused"


def test_gc_collects_uploads_that_were_cut_off(s3_url: str, s3_client: Any) -> None:
    store = Store(s3_url)
    bucket, _, prefix = s3_url.removeprefix("s3://").partition("/")
    upload = s3_client.create_multipart_upload(Bucket=bucket, Key=f"{prefix}/artifacts/x")["UploadId"]
    s3_client.upload_part(Bucket=bucket, Key=f"{prefix}/artifacts/x", UploadId=upload, PartNumber=1, Body=b"12345")
    assert collect(store, plan_garbage(store)) == 5  # this server dates all uploads to the year 2010
    assert list(store.backend.unfinished()) == []


# ---- caution -----------------------------------------------------------------------------------------------


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
    garbage = plan_garbage(local_store)
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
        garbage = plan_garbage(store)
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
        assert store.paths("artifacts") == []
