import os
from pathlib import Path
from typing import Any

from storage.artifacts.lease import Lease
from storage.artifacts.store import Store
from storage.artifacts.upkeep.gc import collect, plan_garbage
from storage.artifacts.upkeep.verify import verify_store
from storage.artifacts.writer import ArtifactWriter
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
    unfinished,
)

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
    newer(store, make_artifact, "download", "filter", "train")
    before = everything(store)
    garbage = plan_garbage(store, min_age_seconds=0)
    assert everything(store) == before
    assert paths(garbage) == [folder("filter", 2), folder("train", 2)]
    size = sum(len(data) for path, data in before.items() if path.startswith(tuple(paths(garbage))))
    assert collect(store, garbage) == sum(item.bytes for item in garbage) == size
    assert {(manifest.stage, manifest.key) for manifest in store.manifests()} == {
        ("download", key(1)),
        ("filter", key(1)),
        ("train", key(1)),
        *((stage, key(NEWER)) for stage in ("download", "filter", "train")),
    }
    assert list(verify_store(store)) == []
    assert store.find("train", key(1)) == model
    assert plan_garbage(store, min_age_seconds=0) == []


def test_gc_keeps_what_a_running_run_has_just_finished(local_store: Store, make_artifact: MakeArtifact) -> None:
    make_artifact(local_store, "filter", key(1))
    newer(local_store, make_artifact, "filter")
    age(local_store)
    local_store.write_run(run("r0", ("filter", 1), ("train", -1), state="running"))
    for later in range(1, 5):
        local_store.write_run(run(f"r{later}", ("filter", NEWER), ("train", later + 1), ("publish", later)))
    assert plan_garbage(local_store) == []
    age(local_store, "runs/r0.json")  # it was killed ten days ago
    assert plan_garbage(local_store) == []  # and can be continued: no newer run has made anything that is there
    for later in range(1, 4):
        make_artifact(local_store, "train", key(later + 1))
        make_artifact(local_store, "publish", key(later))
    assert paths(plan_garbage(local_store)) == [folder("filter", 1)]


def test_gc_keeps_what_the_holder_of_a_lease_reads(
    local_store: Store, make_artifact: MakeArtifact, tmp_path: Path
) -> None:
    # It trains for weeks, and newer runs of its recipe have long finished.
    make_artifact(local_store, "filter", key(1))
    unfinished(local_store, tmp_path, "train", 1)
    local_store.write_run(run("r0", ("filter", 1), ("train", -1), state="running"))
    newer(local_store, make_artifact, "filter", "train")
    for later in range(1, 5):
        local_store.write_run(run(f"r{later}", ("filter", NEWER), ("train", NEWER)))
    lease_of_another_machine(local_store, "train", 1, "r0")
    age(local_store)
    assert plan_garbage(local_store) == []


def test_gc_keeps_all_artifacts_while_a_run_without_a_record_is_at_work(
    local_store: Store, make_artifact: MakeArtifact, tmp_path: Path
) -> None:
    make_artifact(local_store, "filter", key(1))
    newer(local_store, make_artifact, "filter")
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
    newer(local_store, make_artifact, "filter")
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
    local_store: Store, make_artifact: MakeArtifact, tmp_path: Path
) -> None:
    unfinished(local_store, tmp_path, "train", 1)
    local_store.write_run(run("r0", ("train", -1), state="failed"))
    newer(local_store, make_artifact, "train")
    age(local_store)
    assert plan_garbage(local_store, keep_runs=1) == []
    local_store.write_run(run("r1"))
    assert plan_garbage(local_store, keep_runs=1) == []
    local_store.write_run(run("r2", ("train", NEWER)))
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
