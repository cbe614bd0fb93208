import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.artifacts.store import Artifact, Store
from storage.artifacts.writer import ArtifactWriter
from storage.errors import CorruptFileError, CorruptRecordError
from tests.unit.storage.stored import MakeArtifact, contents

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
