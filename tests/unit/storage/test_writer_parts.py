import pickle

import pytest

from storage.artifacts.records import encode_record
from storage.artifacts.store import Store
from storage.artifacts.writer import ArtifactWriter
from storage.backends.base import StoreBackend
from tests.unit.storage.stored import KEY, STAGE, MakeFile, Publish, damage


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
