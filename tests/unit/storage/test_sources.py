import hashlib
import os
from pathlib import Path

import pytest

from storage.errors import Fault, InputError
from storage.sources.files import find_files
from storage.sources.http.server import serve_folder
from storage.sources.mirror import FolderMirror, list_mirror, open_mirror, read_checksums, split_of

SHA = "a" * 64


def make_mirror(folder: Path, names: list[str]) -> Path:
    lines = []
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
        lines.append(f"{hashlib.sha256(name.encode()).hexdigest()}  {name}\n")
    (folder / "SHA256SUMS.txt").write_text("".join(lines))
    return folder


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train/00.jsonl.zst", "train"),
        ("train/deep/00.parquet", "train"),
        ("val.jsonl.zst", "val"),
        ("test/a.jsonl.gz", "test"),
        ("provenance.tsv.zst", ""),
        ("train/README.md", ""),
        ("trainer/00.jsonl.zst", ""),
        ("SHA256SUMS.txt", ""),
    ],
)
def test_split_follows_from_the_first_component(name: str, split: str) -> None:
    assert split_of(name) == split


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../train/0.jsonl",
        "train/../../x",
        "train//x",
        "train/./x",
        "..\\x",
        "train\\x",
        "a\0b",
        "~/../x",
    ],
)
def test_checksum_names_that_leave_the_folder_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="must name files below its own folder"):
        read_checksums(f"{SHA}  {name}\n".encode(), "the list")


@pytest.mark.parametrize(
    "line",
    ["nonsense", f"{SHA}", f"{SHA[:-1]}  train/0.jsonl", f"\\{SHA}  train\\\\0.jsonl", f"{SHA}\ttrain/0.jsonl"],
)
def test_checksum_lines_of_another_kind_are_refused(line: str) -> None:
    with pytest.raises(InputError, match="must hold lines"):
        read_checksums(f"\n{line}\n".encode(), "the list")


def test_checksum_forms_of_sha256sum_are_read() -> None:
    data = f"{SHA.upper()} *./train/a b.jsonl.zst\r\n\n{'b' * 64}  val.jsonl.zst".encode()
    assert read_checksums(data, "the list") == {"train/a b.jsonl.zst": SHA, "val.jsonl.zst": "b" * 64}


def test_checksum_given_twice_must_agree() -> None:
    assert read_checksums(f"{SHA}  a\n{SHA}  a\n".encode(), "the list") == {"a": SHA}
    with pytest.raises(InputError, match="found two for 'a'"):
        read_checksums(f"{SHA}  a\n{'b' * 64}  a\n".encode(), "the list")


@pytest.mark.parametrize("place", ["folder", "http"])
def test_mirror_listing_is_the_same_from_a_folder_and_over_http(tmp_path: Path, place: str) -> None:
    names = ["val.jsonl.zst", "train/01.jsonl.zst", "train/00.jsonl.zst", "LICENSE", "provenance.tsv.zst"]
    folder = make_mirror(tmp_path / "mirror", names)
    with serve_folder(folder) as url:
        mirror = open_mirror(url if place == "http" else str(folder), timeout_seconds=5, retries=0)
        listed = list_mirror(mirror)
        assert list(listed) == ["train/00.jsonl.zst", "train/01.jsonl.zst", "val.jsonl.zst"]
        assert listed["val.jsonl.zst"] == hashlib.sha256(b"val.jsonl.zst").hexdigest()
        assert list(list_mirror(mirror, ("train/*1*", "val*"))) == ["train/01.jsonl.zst", "val.jsonl.zst"]
        with pytest.raises(InputError, match="'train/9' matches none of 3"):
            list_mirror(mirror, ("val*", "train/9"))
        mirror.close()


@pytest.mark.parametrize("place", ["folder", "http"])
def test_mirror_without_checksums_says_how_to_make_them(tmp_path: Path, place: str) -> None:
    with serve_folder(tmp_path) as url:
        mirror = open_mirror(url if place == "http" else str(tmp_path), timeout_seconds=5, retries=0)
        with pytest.raises(InputError, match=r"sha256sum > SHA256SUMS.txt"):
            list_mirror(mirror)
        mirror.close()


def test_mirror_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found no folder"):
        open_mirror(str(tmp_path / "nothing"), timeout_seconds=5, retries=0)


def test_folder_mirror_with_a_changed_file_names_both_checksums(tmp_path: Path) -> None:
    mirror = FolderMirror(str(make_mirror(tmp_path, ["train/00.jsonl.zst", "val.jsonl.zst"])))
    listed = list_mirror(mirror)
    assert mirror.check("val.jsonl.zst", listed["val.jsonl.zst"]).path == tmp_path / "val.jsonl.zst"
    (tmp_path / "val.jsonl.zst").write_bytes(b"changed")
    found = hashlib.sha256(b"changed").hexdigest()
    with pytest.raises(InputError, match=f"must have sha256 {listed['val.jsonl.zst']}.*found {found}"):
        mirror.check("val.jsonl.zst", listed["val.jsonl.zst"])
    (tmp_path / "val.jsonl.zst").unlink()
    with pytest.raises(InputError, match=r"must exist, since SHA256SUMS\.txt lists it"):
        mirror.check("val.jsonl.zst", listed["val.jsonl.zst"])


def test_folder_mirror_tells_which_files_have_no_checksum(tmp_path: Path) -> None:
    mirror = FolderMirror(str(make_mirror(tmp_path, ["train/00.jsonl.zst"])))
    (tmp_path / "train" / "01.jsonl.zst").write_bytes(b"")
    (tmp_path / "notes.md").write_bytes(b"")
    assert mirror.unlisted(list_mirror(mirror)) == ["train/01.jsonl.zst"]


def test_local_files_keep_their_names_when_the_folder_moves(tmp_path: Path) -> None:
    for place in ("here", "there"):
        for name in ("a/1.jsonl", "a/2.jsonl", "b/1.txt"):
            path = tmp_path / place / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
    here, there = (
        [(file.name, file.sha256) for file in find_files([f"{tmp_path}/{place}/**/*.*"])]
        for place in ("here", "there")
    )
    assert here == there
    assert [name for name, _ in here] == ["a/1.jsonl", "a/2.jsonl", "b/1.txt"]
    assert here[0][1] == hashlib.sha256(b"a/1.jsonl").hexdigest()


def test_local_file_matched_twice_is_taken_once(tmp_path: Path) -> None:
    (tmp_path / "a[1].jsonl").write_text("")
    found = find_files([str(tmp_path / "a[1].jsonl"), f"{tmp_path}/*.jsonl", f"{tmp_path}/../{tmp_path.name}/*"])
    assert [file.name for file in found] == ["a[1].jsonl"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("nothing-*.jsonl", "matches none"),
        ("folder", "to read a folder write"),
        ("*", "must end in .*notes.md; narrow the pattern"),
    ],
)
def test_local_pattern_without_readable_files_is_refused(tmp_path: Path, pattern: str, message: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "a.jsonl").write_text("")
    (tmp_path / "notes.md").write_text("")
    with pytest.raises(InputError, match=message):
        find_files([str(tmp_path / pattern)])


def test_local_file_with_new_content_gets_a_new_digest(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("one")
    before = find_files([str(path)])[0]
    before.check_unchanged()
    path.write_text("two")
    os.utime(path, ns=(0, before.status[1] + 1))
    assert find_files([str(path)])[0].sha256 == hashlib.sha256(b"two").hexdigest()
    with pytest.raises(Fault, match="must not change while it is read"):
        before.check_unchanged()
