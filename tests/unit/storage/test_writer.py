import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.artifacts.writer import ArtifactWriter
from storage.errors import CorruptFileError, InputError
from tests.unit.storage.stored import KEY, STAGE, MakeFile, Publish

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
