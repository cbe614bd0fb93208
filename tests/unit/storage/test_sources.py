import hashlib
import os
from pathlib import Path

import pytest

from storage.errors import Fault, InputError
from storage.sources.checked_files import SourceFile, file_digest, file_status
from storage.sources.http.server import serve_folder
from storage.sources.layout import read_checksums, split_of
from storage.sources.mirror.source import MirrorConfig, MirrorSource
from storage.sources.progress import DownloadProgress

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


def mirror_at(url: str | Path, *include: str) -> MirrorSource:
    return MirrorSource(MirrorConfig(url=str(url), include=include or ("*",), timeout_seconds=5, retries=0))


@pytest.mark.parametrize("transport", ["folder", "http"])
def test_mirror_listing_is_the_same_from_a_folder_and_over_http(tmp_path: Path, transport: str) -> None:
    names = ["val.jsonl.zst", "train/01.jsonl.zst", "train/00.jsonl.zst", "LICENSE", "provenance.tsv.zst"]
    folder = make_mirror(tmp_path / "mirror", names)
    with serve_folder(folder) as address:
        url = address if transport == "http" else folder
        listed = mirror_at(url).digests()
        assert list(listed) == ["train/00.jsonl.zst", "train/01.jsonl.zst", "val.jsonl.zst"]
        assert listed["val.jsonl.zst"] == hashlib.sha256(b"val.jsonl.zst").hexdigest()
        assert list(mirror_at(url, "train/*1*", "val*").digests()) == ["train/01.jsonl.zst", "val.jsonl.zst"]
        with pytest.raises(InputError, match="'train/9' matches none of 3"):
            mirror_at(url, "val*", "train/9").digests()


@pytest.mark.parametrize("transport", ["folder", "http"])
def test_mirror_without_checksums_says_how_to_make_them(tmp_path: Path, transport: str) -> None:
    with (
        serve_folder(tmp_path) as address,
        pytest.raises(InputError, match=r"sha256sum > SHA256SUMS.txt"),
    ):
        mirror_at(address if transport == "http" else tmp_path).digests()


def test_mirror_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found no folder"):
        mirror_at(tmp_path / "nothing").digests()


def test_folder_mirror_with_a_changed_file_names_both_checksums(tmp_path: Path) -> None:
    source = mirror_at(make_mirror(tmp_path, ["train/00.jsonl.zst", "val.jsonl.zst"]))
    sha256 = source.digests()["val.jsonl.zst"]
    with source.open(tmp_path / "fetched") as opened:
        assert opened.fetch("val.jsonl.zst", sha256, DownloadProgress(1)) == tmp_path / "val.jsonl.zst"
        (tmp_path / "val.jsonl.zst").write_bytes(b"changed")
        found = hashlib.sha256(b"changed").hexdigest()
        with pytest.raises(InputError, match=f"must have sha256 {sha256}.*found {found}"):
            opened.fetch("val.jsonl.zst", sha256, DownloadProgress(1))
        (tmp_path / "val.jsonl.zst").unlink()
        with pytest.raises(InputError, match=r"must exist, since SHA256SUMS\.txt lists it"):
            opened.fetch("val.jsonl.zst", sha256, DownloadProgress(1))


def test_local_file_with_new_content_gets_a_new_digest(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("one")
    before = SourceFile("a.jsonl", file_digest(path), path, file_status(path))
    before.check_unchanged()
    assert before.is_at_hand()
    path.write_text("two")
    os.utime(path, ns=(0, before.status[1] + 1))
    assert file_digest(path) == hashlib.sha256(b"two").hexdigest()
    assert not before.is_at_hand()
    with pytest.raises(Fault, match="must not change while it is read"):
        before.check_unchanged()
