import hashlib
import json
import pickle
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.artifacts.records import Record, encode_record
from storage.artifacts.store import Artifact, Store
from storage.artifacts.writer import ArtifactWriter
from storage.backends.base import StoreBackend
from storage.errors import CorruptFileError, InputError

STAGE, KEY = "filter", "0123456789abcdef"


@pytest.fixture
def writer(store: Store) -> ArtifactWriter:
    return ArtifactWriter(store, STAGE, KEY)


@pytest.fixture
def local_writer(local_store: Store) -> ArtifactWriter:
    return ArtifactWriter(local_store, STAGE, KEY)


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., Path]:
    """A function that makes a finished local file."""

    def make(content: bytes = b"content", name: str = "documents.jsonl.zst") -> Path:
        path = Path(tmp_path, "finished", hashlib.sha256(content).hexdigest()[:8], name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    return make


Publish = Callable[..., Artifact]
MakeFile = Callable[..., Path]


# ---- names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("a.jsonl.zst", ".jsonl.zst"),
        ("train-0.5.jsonl.zst", ".jsonl.zst"),
        ("model.v1.2.final.json", ".final.json"),
        ("noextension", ""),
        (".hidden", ""),
        ("ends.with.", ""),
        ("a.b c", ""),
        ("a (1).tar.gz", ".tar.gz"),
        ("корпус.данные.txt", ".txt"),
    ],
)
def test_committed_file_keeps_the_end_of_its_name(
    local_writer: ArtifactWriter, file: MakeFile, name: str, suffix: str
) -> None:
    (stored,) = local_writer.commit("train-00000", {"documents": file(name=name)}).files
    digest = hashlib.sha256(b"content").hexdigest()
    assert stored.path == f"data/train-00000-{local_writer.attempt}-{digest[:8]}{suffix}"
    assert local_writer.open(stored).read_bytes() == b"content"


def test_files_of_parts_and_roles_that_read_alike_do_not_collide(
    local_writer: ArtifactWriter, file: MakeFile, publish: Publish
) -> None:
    # Joined with dashes, part "a" with role "b-c" and part "a-b" with role "c" are the same text.
    expected = {}
    for part, roles in {
        "a": ("b-c", "d"),
        "a-b": ("c", "d"),
        "a-b-c": ("d", "b-c"),
        "a-b-c-d": ("documents",),
        "a.json": ("b-c", "d"),
    }.items():
        contents = {role: f"{part} {role}".encode() for role in roles}
        local_writer.commit(part, {role: file(content, "x.bin") for role, content in contents.items()})
        expected |= {(part, role): content for role, content in contents.items()}
    artifact = publish(local_writer)
    found = {(each.part, each.role): artifact.open(each).read_bytes() for each in artifact.manifest.files}
    assert found == expected


def test_files_of_one_part_with_the_same_name_and_content_are_kept_apart_by_role(
    writer: ArtifactWriter, tmp_path: Path
) -> None:
    locals_ = {}
    for role in ("documents", "signatures"):
        (tmp_path / role).mkdir()
        locals_[role] = tmp_path / role / "same.bin"
        locals_[role].write_bytes(b"same")
    part = writer.commit("train-00000", locals_)
    assert len({stored.path for stored in part.files}) == 2
    assert {stored.role: writer.open(stored).read_bytes() for stored in part.files} == dict.fromkeys(
        locals_, b"same"
    )


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", "-a", "_a", "a b", "ä", "a" * 129, "a\n"])
def test_names_that_are_no_single_safe_component_are_refused(
    local_writer: ArtifactWriter, file: MakeFile, name: str
) -> None:
    calls: list[Callable[[], object]] = [
        lambda: local_writer.commit(name, {"documents": file()}),
        lambda: local_writer.commit("part", {"documents": file(), name: file(b"2")}),
        lambda: local_writer.report(name, b"x"),
        lambda: ArtifactWriter(local_writer.store, name, KEY),
        lambda: ArtifactWriter(local_writer.store, STAGE, name),
        lambda: local_writer.store.scratch(STAGE, name),
    ]
    for call in calls:
        with pytest.raises(InputError, match="a name in the store must"):
            call()


# ---- folders -------------------------------------------------------------------------------------------------


def test_folder_is_given_back_as_it_was(writer: ArtifactWriter, tmp_path: Path, publish: Publish) -> None:
    contents = {
        "config.json": b"{}",
        "a/b/weights.bin": b"\0" * 9,
        "a/b.json": b"2",
        "Ünïcode näme.txt": b"3",
        ".x": b"",
    }
    for name, content in contents.items():
        path = tmp_path / "model" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    writer.commit_folder("huggingface", tmp_path / "model", counts={"files": 5})
    artifact = publish(writer)
    for _ in range(2):
        folder = artifact.open_folder("huggingface")
        found = {
            path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
        }
        assert found == contents
    with pytest.raises(CorruptFileError, match="huggingfac'"):
        artifact.open_folder("huggingfac")


def test_folder_without_files_is_refused(local_writer: ArtifactWriter, tmp_path: Path) -> None:
    (tmp_path / "model" / "empty").mkdir(parents=True)
    with pytest.raises(ValueError, match="found none"):
        local_writer.commit_folder("huggingface", tmp_path / "model")


def test_folder_with_a_link_to_a_folder_is_refused_before_anything_is_moved(
    local_writer: ArtifactWriter, tmp_path: Path
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a").write_bytes(b"1")
    (tmp_path / "model" / "z").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="link"):
        local_writer.commit_folder("huggingface", tmp_path / "model")
    assert (tmp_path / "model" / "a").exists()


def test_folder_with_a_link_to_a_file_holds_its_content(
    local_writer: ArtifactWriter, tmp_path: Path, publish: Publish
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "weights").write_bytes(b"weights")
    (tmp_path / "model" / "weights").symlink_to(tmp_path / "weights")
    local_writer.commit_folder("huggingface", tmp_path / "model")
    (tmp_path / "weights").unlink()
    assert (publish(local_writer).open_folder("huggingface") / "weights").read_bytes() == b"weights"


# ---- parts ---------------------------------------------------------------------------------------------------


def test_part_of_a_killed_attempt_is_kept_by_the_next(store: Store, file: MakeFile) -> None:
    first = ArtifactWriter(store, STAGE, KEY)
    part = first.commit("train-00000", {"documents": file()}, counts={"documents": 3}, info={"x": [1]})
    second = ArtifactWriter(store, STAGE, KEY)
    assert second.parts() == {"train-00000": part}
    assert second.part("train-00000") == part
    assert second.part("train-00001") is None


def test_writer_works_in_another_process_as_the_same_attempt(writer: ArtifactWriter, file: MakeFile) -> None:
    worker = pickle.loads(pickle.dumps(writer))
    part = worker.commit("train-00000", {"documents": file()})
    assert part.attempt == writer.attempt
    assert writer.parts() == {"train-00000": part}


def damage(store: Store, path: str, how: str) -> None:
    data = store.backend.read(path)
    if how == "missing":
        store.backend.delete(path)
    elif how == "cut":
        store.backend.write(path, data[:-1])
    else:
        store.backend.write(path, data[:-1] + bytes([data[-1] ^ 1]))


@pytest.mark.parametrize("how", ["missing", "cut", "flipped"])
def test_part_that_was_damaged_since_the_last_attempt_is_dropped(
    local_store: Store, file: MakeFile, how: str
) -> None:
    first = ArtifactWriter(local_store, STAGE, KEY)
    for name in ("a", "b"):
        part = first.commit(name, {"one": file(name.encode()), "two": file(name.encode() * 2)})
    damage(local_store, f"{first.folder}/{part.files[1].path}", how)
    second = ArtifactWriter(local_store, STAGE, KEY)
    assert set(second.parts()) == {"a"}
    assert second.part("b") is None


@pytest.mark.parametrize("how", ["missing", "cut"])
def test_part_of_this_attempt_whose_file_is_gone_is_dropped(
    writer: ArtifactWriter, file: MakeFile, how: str
) -> None:
    part = writer.commit("a", {"documents": file()})
    damage(writer.store, f"{writer.folder}/{part.files[0].path}", how)
    assert writer.parts() == {}


@pytest.mark.parametrize("content", [b"", b"{}", b"half"])
def test_part_whose_record_is_damaged_is_dropped(writer: ArtifactWriter, file: MakeFile, content: bytes) -> None:
    writer.commit("a", {"documents": file()})
    writer.store.backend.write(f"{writer.folder}/parts/a.json", content)
    assert writer.part("a") is None
    assert writer.parts() == {}
    assert writer.store.paths(f"{writer.folder}/parts") == []


def test_part_record_under_another_name_is_dropped(writer: ArtifactWriter, file: MakeFile) -> None:
    part = writer.commit("a", {"documents": file()})
    writer.store.backend.write(f"{writer.folder}/parts/b.json", encode_record(part))
    assert set(writer.parts()) == {"a"}
    assert writer.store.paths(f"{writer.folder}/parts") == [f"{writer.folder}/parts/a.json"]


# ---- what is returned and what is read back ---------------------------------------------------------------


HOSTILE = {
    "zeta": (3, ({"b": 1, "a": (2.0,)},)),
    "alpha": {"é": 1e-7, "Z": -0.0, "10": 1e22, "9": None, "": {}},
    "Omega": 0.1,
}
"""Keys in no order, tuples, which JSON does not have, and floats whose digits must survive."""


def reordered(value: object) -> object:
    """Return an equal value whose dicts have their keys the other way round."""
    if isinstance(value, dict):
        return {name: reordered(each) for name, each in reversed(value.items())}
    return tuple(map(reordered, value)) if isinstance(value, tuple) else value


def fields_in_order(record: Record) -> dict[str, str]:
    """Return the fields as text that shows the order of keys, tuples from lists, and floats from integers."""
    return {name: repr(getattr(record, name)) for name in type(record).model_fields}


@pytest.mark.parametrize("hostile", [HOSTILE, reordered(HOSTILE)], ids=["one way", "other way"])
def test_part_and_artifact_are_those_that_are_read_back(
    writer: ArtifactWriter, file: MakeFile, publish: Publish, hostile: dict[str, object]
) -> None:
    # A later stage must see the same whether it runs in the process that made its input or finds it.
    names, counts = dict.fromkeys(hostile, "1.0"), dict.fromkeys(hostile, 1)
    upstream = ArtifactWriter(writer.store, "download", KEY)
    upstream.commit("train-00000", {"documents": file()})
    inputs = dict.fromkeys(hostile, publish(upstream))
    files = {name: file(name.encode()) for name in hostile}
    part = writer.commit("train-00000", files, counts=counts, info=hostile)
    artifact = publish(
        writer, config=hostile, inputs=inputs, sources=names, recipe={"filter": hostile}, libraries=names
    )
    read = writer.part("train-00000")
    found = writer.store.find(STAGE, KEY)
    assert read is not None
    assert found is not None
    for returned, stored in ((part, read), (artifact.manifest, found.manifest)):
        assert fields_in_order(returned) == fields_in_order(stored)
        assert returned.model_dump_json() == stored.model_dump_json()


class Dying:
    """A place for files whose user is killed after a number of changes."""

    def __init__(self, files: StoreBackend, changes: int) -> None:
        self.files = files
        self.changes = changes

    def __getattr__(self, name: str) -> object:
        call = getattr(self.files, name)
        if name not in ("write", "create", "put", "delete"):
            return call

        def counted(*arguments: object) -> object:
            self.changes -= 1
            if self.changes < 0:
                raise KeyboardInterrupt
            return call(*arguments)

        return counted


@pytest.mark.parametrize("changes", range(6))
def test_part_committed_again_is_the_old_or_the_new_one_whenever_the_writer_dies(
    store: Store, file: MakeFile, changes: int
) -> None:
    # A checkpoint under one name: losing both the old and the new would cost the whole training.
    writer = ArtifactWriter(store, STAGE, KEY)
    writer.commit("checkpoint", {"weights": file(b"old"), "state": file(b"1")})
    alive = store.backend
    store.backend = Dying(alive, changes)
    died = False
    try:
        writer.commit("checkpoint", {"weights": file(b"newer"), "state": file(b"22")})
    except KeyboardInterrupt:
        died = True
    store.backend = alive
    assert died == (changes < 5)  # two files, the record, and two files less
    part = ArtifactWriter(store, STAGE, KEY).parts()["checkpoint"]
    found = {stored.role: writer.open(stored).read_bytes() for stored in part.files}
    assert found == ({"weights": b"old", "state": b"1"} if changes < 3 else {"weights": b"newer", "state": b"22"})
    if not died:
        assert len(store.paths(f"{writer.folder}/data")) == 2


def test_part_committed_again_with_the_same_content_keeps_its_file(writer: ArtifactWriter, file: MakeFile) -> None:
    writer.commit("a", {"documents": file()})
    part = writer.commit("a", {"documents": file()}, counts={"documents": 1})
    assert writer.parts() == {"a": part}
    assert writer.open(part.files[0]).read_bytes() == b"content"


def test_part_of_another_attempt_is_replaced_without_removing_its_files(store: Store, file: MakeFile) -> None:
    # That other attempt may still be at work, about to publish what it committed.
    first, second = ArtifactWriter(store, STAGE, KEY), ArtifactWriter(store, STAGE, KEY)
    old = first.commit("a", {"documents": file(b"first")})
    new = second.commit("a", {"documents": file(b"second")})
    assert first.open(old.files[0]).read_bytes() == b"first"
    assert first.parts() == {"a": new}


def test_discarded_part_leaves_nothing(writer: ArtifactWriter, file: MakeFile) -> None:
    writer.commit("step-1", {"weights": file(b"1"), "state": file(b"2")})
    writer.discard("step-1")
    writer.discard("step-1")
    assert writer.store.paths("artifacts") == []


def test_discarded_or_replaced_part_that_was_published_keeps_its_files(
    writer: ArtifactWriter, file: MakeFile, publish: Publish
) -> None:
    writer.commit("a", {"documents": file(b"a")})
    writer.commit("b", {"documents": file(b"b")})
    artifact = publish(writer)
    writer.discard("a")
    writer.commit("b", {"documents": file(b"new b")})
    assert writer.store.find(STAGE, KEY) == artifact
    assert [artifact.open(each).read_bytes() for each in artifact.manifest.files] == [b"a", b"b"]


def test_discard_beside_a_damaged_manifest_keeps_the_files_that_it_may_name(
    local_writer: ArtifactWriter, file: MakeFile
) -> None:
    local_writer.commit("a", {"documents": file()})
    local_writer.store.backend.write(f"{local_writer.folder}/manifest.json", b"damaged")
    local_writer.discard("a")
    assert len(local_writer.store.paths(f"{local_writer.folder}/data")) == 1


def test_forget_parts_leaves_the_published_artifact(
    writer: ArtifactWriter, file: MakeFile, publish: Publish
) -> None:
    writer.commit("a", {"documents": file()})
    artifact = publish(writer)
    again = ArtifactWriter(writer.store, STAGE, KEY)
    again.forget_parts()
    assert again.parts() == {}
    assert writer.store.find(STAGE, KEY) == artifact


# ---- publishing ----------------------------------------------------------------------------------------------


def test_reports_of_one_role_are_kept_apart_and_the_last_counts(
    writer: ArtifactWriter, file: MakeFile, publish: Publish
) -> None:
    part = writer.commit("a", {"documents": file()})
    reports = [
        writer.report(role, text) for role, text in (("r.md", b"first"), ("s.md", b"other"), ("r.md", b"second"))
    ]
    artifact = publish(writer, parts=[part], reports=reports)
    assert artifact.report("r.md") == b"second"
    assert artifact.report("s.md") == b"other"
    assert artifact.report("t.md") is None
    assert writer.store.find(STAGE, KEY) == artifact


def test_reports_do_not_change_the_content_digest(local_store: Store, file: MakeFile, publish: Publish) -> None:
    digests = set()
    for text in (b"took 3 s", b"took 4 s"):
        writer = ArtifactWriter(local_store, STAGE, KEY)
        part = writer.commit("a", {"documents": file()})
        digests.add(publish(writer, parts=[part], reports=[writer.report("r.md", text)]).content_digest)
    assert len(digests) == 1


def test_publish_sums_counts_and_keeps_the_order_of_parts(
    local_writer: ArtifactWriter, file: MakeFile, publish: Publish
) -> None:
    parts = [
        local_writer.commit(
            name, {"documents": file(name.encode())}, counts={"documents": number, f"only.{name}": 1}
        )
        for name, number in (("z", 1), ("a", 20))
    ]
    artifact = publish(local_writer, parts=parts)
    assert artifact.counts == {"documents": 21, "only.a": 1, "only.z": 1}
    assert [each.part for each in artifact.files("documents")] == ["z", "a"]
    assert [each.part for each in artifact.files("documents", "a")] == ["a"]


def test_publish_with_a_part_twice_is_refused(
    local_writer: ArtifactWriter, file: MakeFile, publish: Publish
) -> None:
    part = local_writer.commit("a", {"documents": file()})
    with pytest.raises(ValueError, match=r"different names.*'a'"):
        publish(local_writer, parts=[part, part])
    assert local_writer.store.find(STAGE, KEY) is None


@pytest.mark.parametrize("how", ["missing", "cut"])
def test_publish_of_what_is_not_there_is_refused(
    writer: ArtifactWriter, file: MakeFile, publish: Publish, how: str
) -> None:
    part = writer.commit("a", {"documents": file()})
    damage(writer.store, f"{writer.folder}/{part.files[0].path}", how)
    with pytest.raises(CorruptFileError):
        publish(writer, parts=[part])
    assert writer.store.find(STAGE, KEY) is None


def independent_digest(contents: dict[str, bytes]) -> str:
    entries = [[part, "documents", hashlib.sha256(data).hexdigest(), len(data)] for part, data in contents.items()]
    return hashlib.sha256(json.dumps(sorted(entries), separators=(",", ":")).encode()).hexdigest()


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    contents=st.dictionaries(st.sampled_from(["a", "a-b", "b", "train-00000"]), st.binary(max_size=5), min_size=1),
    data=st.data(),
)
def test_content_digest_is_that_of_the_content_whatever_the_order_and_the_attempts(
    tmp_path: Path, publish: Publish, contents: dict[str, bytes], data: st.DataObject
) -> None:
    store = Store(str(tmp_path / uuid.uuid4().hex))
    writer = ArtifactWriter(store, STAGE, KEY)
    for name in data.draw(st.permutations(sorted(contents)), label="order of commits"):
        if data.draw(st.booleans(), label="killed before"):
            writer = ArtifactWriter(store, STAGE, KEY)
        (tmp_path / "x.bin").write_bytes(contents[name])
        writer.commit(name, {"documents": tmp_path / "x.bin"})
    parts = writer.parts()
    order = data.draw(st.permutations(sorted(parts)), label="order of publication")
    artifact = publish(writer, parts=[parts[name] for name in order])
    assert artifact.content_digest == independent_digest(contents)


# ---- two writers of one key ----------------------------------------------------------------------------------


class Turns:
    """Lets two workers make their changes one at a time, in the order of a schedule; after each, it looks."""

    def __init__(self, schedule: Iterator[str], look: Callable[[], None]) -> None:
        self.schedule = schedule
        self.look = look
        self.changed = threading.Condition()
        self.working = {"A", "B"}
        self.turn = next(schedule, "A")

    def change(self, worker: str, call: Callable[..., object], *arguments: object) -> object:
        with self.changed:
            assert self.changed.wait_for(lambda: self.turn == worker or self.working == {worker}, timeout=60)
            try:
                return call(*arguments)
            finally:
                self.look()
                self.turn = next(self.schedule, self.turn)
                self.changed.notify_all()

    def finish(self, worker: str) -> None:
        with self.changed:
            self.working.discard(worker)
            self.changed.notify_all()


class Scheduled:
    """A place for files in which a worker makes changes only when it is its turn."""

    def __init__(self, files: StoreBackend, worker: str, turns: Turns) -> None:
        self.files = files
        self.worker = worker
        self.turns = turns

    def __getattr__(self, name: str) -> object:
        call = getattr(self.files, name)
        if name not in ("write", "create", "put", "delete"):
            return call
        return lambda *arguments: self.turns.change(self.worker, call, *arguments)


def run_two_writers(folder: Path, schedule: str, publish: Publish, *, same_content: bool) -> None:
    """Let two attempts at one artifact run to their end; every manifest that is ever visible must verify."""
    root = folder / uuid.uuid4().hex
    root.mkdir()
    store = Store(str(root / "store"))
    problems: list[BaseException] = []
    seen = set()

    def look() -> None:
        found = store.find(STAGE, KEY)
        if found is not None:
            seen.add(found.manifest.attempts)
            for each in found.manifest.files:
                assert (
                    hashlib.sha256((root / "store" / found.url / each.path).read_bytes()).hexdigest()
                    == each.sha256
                )

    turns = Turns(iter(schedule), look)

    def work(worker: str) -> None:
        try:
            own = Store(str(root / "store"))
            own.backend = Scheduled(own.backend, worker, turns)
            writer = ArtifactWriter(own, STAGE, KEY)

            def commit(part: str) -> None:
                local = root / f"{worker}-{part}.bin"
                local.write_bytes(part.encode() if same_content else f"{worker} {part}".encode())
                writer.commit(part, {"documents": local})

            commit("step-1")
            for part in ("p", "q"):
                if part not in writer.parts():
                    commit(part)
            commit("step-1")  # a checkpoint is replaced, and thrown away at the end
            writer.discard("step-1")
            parts = writer.parts()
            publish(writer, parts=[parts[name] for name in ("p", "q")])
        except BaseException as error:  # noqa: BLE001 - shown by the assertion below
            problems.append(error)
        finally:
            turns.finish(worker)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in "AB"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert seen
    artifact = store.find(STAGE, KEY)
    assert artifact is not None
    if same_content:
        assert artifact.content_digest == independent_digest({"p": b"p", "q": b"q"})


CHANGES = 12
"""More than one of the two writers makes."""


@pytest.mark.parametrize("before", range(CHANGES))
def test_two_writers_of_which_one_pauses_leave_only_whole_manifests(
    tmp_path: Path, publish: Publish, before: int
) -> None:
    for pause in (1, 2, 4, 8, CHANGES):
        schedule = "A" * before + "B" * pause + "A" * CHANGES
        run_two_writers(tmp_path, schedule, publish, same_content=before % 2 == 0)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(schedule=st.text("AB", max_size=2 * CHANGES), same_content=st.booleans())
def test_two_writers_in_any_order_leave_only_whole_manifests(
    tmp_path: Path, publish: Publish, schedule: str, same_content: bool
) -> None:
    run_two_writers(tmp_path, schedule, publish, same_content=same_content)
