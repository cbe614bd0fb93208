import contextlib
import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from storage.artifacts.records import Run, StoredFile, decode_record, encode_record
from storage.artifacts.store import Artifact, Store
from storage.artifacts.writer import ArtifactWriter
from storage.errors import CorruptFileError, CorruptRecordError, InputError

REPOSITORY = Path(__file__).parents[3]
MakeArtifact = Callable[..., Artifact]


def contents(artifact: Artifact) -> dict[str, bytes]:
    """Return part -> content of an artifact whose parts have one file."""
    return {file.part: artifact.open(file).read_bytes() for file in artifact.manifest.files}


# ---- the store against a model of it in memory ----------------------------------------------------------------

KEYS = st.sampled_from(["00000000000000aa", "00000000000000ab"])
PARTS = st.sampled_from(["a", "a-b", "train-00000", "train-00001"])
ROLES = st.sampled_from([("documents",), ("documents", "signatures")])
CONTENT = st.binary(max_size=6)

Content = dict[tuple[str, str], bytes]
"""(Part, role) -> content."""


class Killed(BaseException):
    """Stands for kill -9: no code of ours catches it."""


class StoreMachine(RuleBasedStateMachine):
    """Attempts at two artifacts are killed, resumed, forced and published: what must be found after each step."""

    url = ""
    folder = Path()
    publish: Callable[..., Artifact]

    def __init__(self) -> None:
        super().__init__()
        unique = uuid.uuid4().hex
        self.work = self.folder / unique
        self.work.mkdir(parents=True)
        self.store = Store(f"{self.url}/{unique}")
        self.reader = Store(self.store.url)
        self.writers: dict[str, ArtifactWriter] = {}
        self.committed: dict[str, dict[str, dict[str, bytes]]] = {}
        self.published: dict[str, Content] = {}

    def writer(self, key: str) -> ArtifactWriter:
        return self.writers.setdefault(key, ArtifactWriter(self.store, "filter", key))

    def parts(self, key: str) -> dict[str, dict[str, bytes]]:
        return self.committed.setdefault(key, {})

    def local_files(self, roles: tuple[str, ...], content: bytes) -> dict[str, Path]:
        files = {}
        for role in roles:
            files[role] = self.work / f"{uuid.uuid4().hex}.bin"
            files[role].write_bytes(role.encode() + content)
        return files

    @rule(key=KEYS, part=PARTS, roles=ROLES, content=CONTENT)
    def commit(self, key: str, part: str, roles: tuple[str, ...], content: bytes) -> None:
        self.writer(key).commit(part, self.local_files(roles, content), counts={"bytes": len(content)})
        self.parts(key)[part] = {role: role.encode() + content for role in roles}

    @rule(key=KEYS, part=PARTS, roles=ROLES, content=CONTENT, changes=st.integers(0, 4))
    def die_while_committing(
        self, key: str, part: str, roles: tuple[str, ...], content: bytes, changes: int
    ) -> None:
        files = self.local_files(roles, content)
        writer = self.writer(key)
        alive = writer.store.backend
        left = iter(range(changes))

        class Dying:
            def __getattr__(self, name: str) -> object:
                if name in ("write", "put", "delete") and next(left, None) is None:
                    raise Killed
                return getattr(alive, name)

        writer.store.backend = Dying()
        try:
            with contextlib.suppress(Killed):
                writer.commit(part, files, counts={"bytes": len(content)})
        finally:
            writer.store.backend = alive
        if changes > len(roles):  # the record was written too
            self.parts(key)[part] = {role: role.encode() + content for role in roles}
        self.writers[key] = ArtifactWriter(self.store, "filter", key)

    @rule(key=KEYS)
    def start_anew(self, key: str) -> None:
        self.writers[key] = ArtifactWriter(self.store, "filter", key)

    @rule(key=KEYS)
    def force(self, key: str) -> None:
        self.writers[key] = ArtifactWriter(self.store, "filter", key)
        self.writer(key).forget_parts()
        self.committed[key] = {}

    @rule(key=KEYS, part=PARTS)
    def discard(self, key: str, part: str) -> None:
        self.writer(key).discard(part)
        self.parts(key).pop(part, None)

    @rule(key=KEYS, part=PARTS)
    def lose_the_end_of_a_file(self, key: str, part: str) -> None:
        record = self.writer(key).part(part)
        manifest = self.store.manifest("filter", key)
        if record is None or (manifest is not None and record.files[0] in manifest.files):
            return
        path = f"{self.writer(key).folder}/{record.files[0].path}"
        self.store.backend.write(path, self.store.backend.read(path)[:-1])
        del self.parts(key)[part]
        self.writer(key).parts()

    @precondition(lambda self: any(self.committed.values()))
    @rule(data=st.data())
    def publish_the_parts(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(key for key, parts in self.committed.items() if parts)))
        parts = self.writer(key).parts()
        assert set(parts) == set(self.parts(key))
        order = data.draw(st.permutations(sorted(parts)))
        report = self.writer(key).report("report.md", data.draw(CONTENT))
        artifact = type(self).publish(self.writer(key), parts=[parts[name] for name in order], reports=[report])
        self.published[key] = {
            (part, role): content for part, roles in self.parts(key).items() for role, content in roles.items()
        }
        entries = [
            [part, role, hashlib.sha256(content).hexdigest(), len(content)]
            for (part, role), content in self.published[key].items()
        ]
        encoded = json.dumps(sorted(entries), separators=(",", ":")).encode()
        assert artifact.content_digest == hashlib.sha256(encoded).hexdigest()
        assert [file.part for file in artifact.files("documents")] == list(order)

    @invariant()
    def what_is_found_is_what_was_published(self) -> None:
        for key in {*self.committed, *self.published, "00000000000000aa"}:
            artifact = self.reader.find("filter", key)
            assert (artifact is None) == (key not in self.published)
            if artifact is not None:
                found = {(f.part, f.role): artifact.open(f).read_bytes() for f in artifact.manifest.files}
                assert found == self.published[key]
        assert {manifest.key for manifest in self.store.manifests()} == set(self.published)

    @invariant()
    def what_is_committed_is_found_by_the_next_attempt(self) -> None:
        for key, parts in self.committed.items():
            assert set(ArtifactWriter(self.reader, "filter", key).parts()) == set(parts)

    def teardown(self) -> None:
        shutil.rmtree(self.work)


@pytest.fixture
def machine(store_url: str, tmp_path: Path, publish: Callable[..., Artifact]) -> type[StoreMachine]:
    fields = {"url": store_url, "folder": tmp_path / "work", "publish": staticmethod(publish)}
    return type("Machine", (StoreMachine,), fields)


def test_store_behaves_like_its_model(machine: type[StoreMachine]) -> None:
    examples, steps = (4, 8) if machine.url.startswith("s3://") else (30, 20)
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large]
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=checks
        ),
    )


# ---- finding ---------------------------------------------------------------------------------------------------


def test_find_of_what_was_never_built_is_none(store: Store) -> None:
    assert store.find("filter", "0" * 16) is None
    assert store.manifest("filter", "0" * 16) is None
    assert list(store.manifests()) == list(store.runs()) == store.pins() == []


def test_find_of_an_unfinished_artifact_is_none(store: Store, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"1")
    ArtifactWriter(store, "filter", "0" * 16).commit("a", {"documents": tmp_path / "a.bin"})
    assert store.find("filter", "0" * 16) is None


@pytest.mark.parametrize("which", ["files", "reports"])
@pytest.mark.parametrize("how", ["missing", "cut"])
def test_find_of_an_artifact_that_is_not_whole_is_an_error_that_names_the_file(
    store: Store, make_artifact: MakeArtifact, which: str, how: str
) -> None:
    artifact = make_artifact(store, "filter", "0" * 16)
    file = getattr(artifact.manifest, which)[0]
    path = f"artifacts/filter/{'0' * 16}/{file.path}"
    if how == "missing":
        store.backend.delete(path)
    else:
        store.backend.write(path, b"x")
    with pytest.raises(CorruptFileError, match=file.path):
        store.find("filter", "0" * 16)


def test_find_with_a_damaged_manifest_is_an_error_that_names_it(store: Store, make_artifact: MakeArtifact) -> None:
    make_artifact(store, "filter", "0" * 16)
    store.backend.write(f"artifacts/filter/{'0' * 16}/manifest.json", b"{}")
    with pytest.raises(CorruptRecordError, match=r"manifest\.json"):
        store.find("filter", "0" * 16)
    assert list(store.manifests()) == []


def test_find_of_a_copied_manifest_is_an_error(local_store: Store, make_artifact: MakeArtifact) -> None:
    make_artifact(local_store, "filter", "a" * 16)
    root = Path(local_store.url, "artifacts", "filter")
    shutil.copytree(root / ("a" * 16), root / ("b" * 16))
    with pytest.raises(CorruptRecordError, match=f"must describe filter/{'b' * 16}"):
        local_store.find("filter", "b" * 16)


class Interrupting:
    """A place for files in which something else happens just before the first listing."""

    def __init__(self, store: Store, event: Callable[[], object]) -> None:
        self.files = store.backend
        self.event: Callable[[], object] | None = event

    def __getattr__(self, name: str) -> object:
        if name == "list" and self.event is not None:
            event, self.event = self.event, None
            event()
        return getattr(self.files, name)


def test_find_of_an_artifact_that_is_removed_meanwhile_is_none(
    local_store: Store, make_artifact: MakeArtifact
) -> None:
    artifact = make_artifact(local_store, "filter", "0" * 16)
    local_store.backend = Interrupting(local_store, lambda: shutil.rmtree(artifact.url))
    assert local_store.find("filter", "0" * 16) is None


def test_find_of_an_artifact_that_is_rebuilt_meanwhile_is_the_new_one(
    local_store: Store, make_artifact: MakeArtifact
) -> None:
    old = make_artifact(local_store, "filter", "0" * 16, {"a": b"old"})
    other = Store(local_store.url)

    def rebuild() -> None:
        ArtifactWriter(other, "filter", "0" * 16).forget_parts()
        make_artifact(other, "filter", "0" * 16, {"a": b"new"})
        other.backend.delete(f"artifacts/filter/{'0' * 16}/{old.manifest.files[0].path}")

    local_store.backend = Interrupting(local_store, rebuild)
    found = local_store.find("filter", "0" * 16)
    assert found is not None
    assert contents(found) == {"a": b"new"}


def test_find_does_not_trust_a_listing_that_lags_behind(local_store: Store, make_artifact: MakeArtifact) -> None:
    artifact = make_artifact(local_store, "filter", "0" * 16)

    class Lagging:
        def __init__(self) -> None:
            self.files = local_store.backend

        def __getattr__(self, name: str) -> object:
            return (lambda folder: iter(())) if name == "list" else getattr(self.files, name)

    local_store.backend = Lagging()
    assert local_store.find("filter", "0" * 16) == artifact


# ---- reading ---------------------------------------------------------------------------------------------------


def test_file_with_a_flipped_byte_is_not_opened(local_store: Store, make_artifact: MakeArtifact) -> None:
    artifact = make_artifact(local_store, "filter", "0" * 16)
    (file,) = artifact.manifest.files
    path = artifact.open(file)
    data = bytearray(path.read_bytes())
    data[3] ^= 4
    path.write_bytes(data)
    with pytest.raises(CorruptFileError, match="found sha256"):
        artifact.open(file)
    path.unlink()
    with pytest.raises(CorruptFileError, match="found no file"):
        artifact.open(file)


def test_file_that_was_checked_is_checked_again_for_another_checksum(
    local_store: Store, make_artifact: MakeArtifact
) -> None:
    artifact = make_artifact(local_store, "filter", "0" * 16)
    (file,) = artifact.manifest.files
    artifact.open(file)
    with pytest.raises(CorruptFileError):
        artifact.open(file.model_copy(update={"sha256": "0" * 64}))


def test_only_file_of_a_role_is_the_only_one(local_store: Store, make_artifact: MakeArtifact) -> None:
    one = make_artifact(local_store, "filter", "1" * 16, {"a": b"1"})
    two = make_artifact(local_store, "filter", "2" * 16, {"a": b"1", "b": b"2"})
    assert one.file("text").part == "a"
    for artifact, role in ((two, "text"), (one, "weights")):
        with pytest.raises(CorruptFileError, match=f"one file of role '{role}'"):
            artifact.file(role)


def test_remote_file_is_fetched_once_and_again_when_the_copy_is_damaged(
    s3_url: str, make_artifact: MakeArtifact
) -> None:
    store = Store(s3_url)
    artifact = make_artifact(store, "filter", "0" * 16, {"a": b"content"})
    (file,) = artifact.manifest.files
    copy = artifact.open(file)
    assert copy.is_relative_to(store.fetched_root())
    fetched = copy.stat().st_ino
    assert artifact.open(file).stat().st_ino == fetched
    for damage in (b"CONTENT", b"cut"):
        copy.write_bytes(damage)
        assert artifact.open(file).read_bytes() == b"content"
    copy.unlink()
    store.backend.write(f"artifacts/filter/{'0' * 16}/{file.path}", b"CONTENT")
    with pytest.raises(CorruptFileError, match="found sha256"):
        artifact.open(file)


def test_remote_file_that_many_threads_want_is_whole_for_each(s3_url: str, make_artifact: MakeArtifact) -> None:
    artifact = make_artifact(Store(s3_url), "filter", "0" * 16, {"a": b"content" * 1000})
    (file,) = artifact.manifest.files
    barrier = threading.Barrier(6)
    found: list[bytes | BaseException] = []

    def read() -> None:
        try:
            barrier.wait()
            found.append(artifact.open(file).read_bytes())
        except BaseException as error:  # noqa: BLE001 - shown by the assertion below
            found.append(error)

    threads = [threading.Thread(target=read) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [b"content" * 1000] * 6
    assert len(list(artifact.store.fetched_root().iterdir())) == 1


def test_remote_folder_heals_when_a_copy_is_damaged(
    s3_url: str, tmp_path: Path, publish: Callable[..., Artifact]
) -> None:
    (tmp_path / "model" / "sub").mkdir(parents=True)
    (tmp_path / "model" / "sub" / "weights").write_bytes(b"weights")
    writer = ArtifactWriter(Store(s3_url), "publish", "0" * 16)
    writer.commit_folder("huggingface", tmp_path / "model")
    artifact = publish(writer)
    folder = artifact.open_folder("huggingface")
    (folder / "sub" / "weights").write_bytes(b"damaged")
    assert (artifact.open_folder("huggingface") / "sub" / "weights").read_bytes() == b"weights"
    shutil.rmtree(artifact.store.fetched_root())
    assert (artifact.open_folder("huggingface") / "sub" / "weights").read_bytes() == b"weights"


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
        "storage.artifacts.verify",
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
