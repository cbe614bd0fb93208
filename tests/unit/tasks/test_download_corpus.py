import gzip
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from storage.formats.documents import Document
from storage.sources.http.server import serve_folder
from tasks.download.config import corpus_sources
from tests.unit.tasks.downloads import Progress, contents, documents, download, download_config, json_lines

pytestmark = pytest.mark.usefixtures("short_pauses")


def test_mirror_becomes_shards_with_its_splits_ids_and_meta(tmp_path: Path, mirror: Path) -> None:
    artifact = download(tmp_path / "store", url=str(mirror), shard_bytes=20_000)
    found = documents(artifact, "train-")
    assert [document.id for document in found] == [
        f"train/{number:02d}.jsonl.zst:{line}" for number in range(4) for line in range(1, 301)
    ]
    assert found[301] == Document("train/01.jsonl.zst:2", "Set 1", "Text 1 of file 1. " * 2, {"n": 1})
    assert [document.text for document in documents(artifact, "val-")] == ["val one"]
    assert [document.text for document in documents(artifact, "test-")] == ["test one"]
    parts = [file.part for file in artifact.files("documents")]
    trains = sum(part.startswith("train") for part in parts)
    assert parts == [*(f"train-{number:05d}" for number in range(trains)), "val-00000", "test-00000"]
    assert trains > 4
    assert artifact.counts["documents"] == 1202
    assert artifact.counts["documents.Set 0"] == 601
    assert (
        artifact.counts["text_bytes"] == artifact.counts["text_bytes.Set 0"] + artifact.counts["text_bytes.Set 1"]
    )
    assert artifact.counts["dropped.Set 0.empty"] == 1


def test_table_shows_documents_and_bytes_by_subset_and_split(tmp_path: Path, mirror: Path) -> None:
    artifact = download(tmp_path / "store", url=str(mirror))
    rows = json.loads(artifact.report("tables.json") or b"")["Downloaded"]
    assert [(row["split"], row["subset"], row["documents"]) for row in rows] == [
        ("train", "Set 0", 600),
        ("train", "Set 1", 600),
        ("val", "Set 0", 1),
        ("test", "Set 1", 1),
    ]
    assert sum(row["text bytes"] for row in rows) == artifact.counts["text_bytes"]


def test_folder_and_http_and_any_number_of_workers_give_the_same_bytes(tmp_path: Path, mirror: Path) -> None:
    progress: Progress = []
    one = download(tmp_path / "one", url=str(mirror), shard_bytes=9_000)
    two = download(tmp_path / "two", workers=2, url=str(mirror), shard_bytes=9_000)
    with serve_folder(mirror) as url:
        web = download(tmp_path / "web", progress=progress, url=url, shard_bytes=9_000, parallel_downloads=2)
    assert contents(one) == contents(two) == contents(web)
    assert one.manifest.key == web.manifest.key
    assert one.content_digest == two.content_digest == web.content_digest
    total = sum(path.stat().st_size for path in mirror.rglob("[0-9vt]*.jsonl.zst"))
    assert (total, total, "bytes") in progress


def test_included_files_decide_the_identity_and_the_place_does_not(tmp_path: Path, mirror: Path) -> None:
    some = download(tmp_path / "store", url=str(mirror), include=("train/0[01]*", "val*"))
    assert {document.id.partition(":")[0] for document in documents(some)} == {
        "train/00.jsonl.zst",
        "train/01.jsonl.zst",
        "val.jsonl.zst",
    }
    same = download_config(url=str(mirror), include=("train/00*", "train/01*", "val.*"))
    assert corpus_sources(same) == some.manifest.sources
    assert same.identity() == some.manifest.config


def test_same_files_as_mirror_and_as_local_files_have_different_keys(tmp_path: Path, mirror: Path) -> None:
    as_mirror = download_config(url=str(mirror), include=("train/*",))
    as_files = download_config(patterns=(f"{mirror}/train/*",))
    assert sorted(corpus_sources(as_mirror).values()) == sorted(corpus_sources(as_files).values())
    assert corpus_sources(as_mirror) != corpus_sources(as_files)


def test_sources_write_nothing(tmp_path: Path, mirror: Path) -> None:
    before = sorted(path for path in tmp_path.rglob("*"))
    with serve_folder(mirror) as url:
        assert corpus_sources(download_config(url=url)) == corpus_sources(download_config(url=str(mirror)))
    assert sorted(path for path in tmp_path.rglob("*")) == before


def test_local_files_are_divided_by_the_hash_of_their_text(tmp_path: Path) -> None:
    texts = [f"text {number}" for number in range(2000)]
    (tmp_path / "a.jsonl").write_bytes(json_lines(texts[:1000], "A"))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(json_lines(texts[1000:] + texts[:500], "B")))
    artifact = download(
        tmp_path / "store",
        patterns=(f"{tmp_path}/*.jsonl*",),
        val_fraction=0.1,
        test_fraction=0.05,
        shard_bytes=20_000,
    )
    for split, low, high in (("test-", 0, 0.05), ("val-", 0.05, 0.15), ("train-", 0.15, 1)):
        found = documents(artifact, split)
        assert found
        for document in found:
            place = int(hashlib.sha256(document.text.encode()).hexdigest()[:8], 16) / 2**32
            assert low <= place < high
    assert sorted(document.text for document in documents(artifact)) == sorted(texts + texts[:500])
    assert {document.id.partition(":")[0] for document in documents(artifact)} == {"a.jsonl", "b.jsonl.gz"}


def test_text_files_carry_the_stated_subset(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text(f"Book {number}\n\nmore\n")
    artifact = download(
        tmp_path / "store", patterns=(f"{tmp_path}/*.txt",), subset="Books", val_fraction=0.0, test_fraction=0.0
    )
    assert documents(artifact) == [Document(f"{n}.txt:1", "Books", f"Book {n}\n\nmore\n") for n in range(3)]


def test_python_environment_goes_through_the_same_download(tmp_path: Path) -> None:
    artifact = download(tmp_path / "store", text_bytes=1_000_000, shard_bytes=200_000)
    assert artifact.counts["text_bytes"] >= 1_000_000
    for split in ("val-", "test-"):
        assert sum(len(document.text.encode()) for document in documents(artifact, split)) >= 10_000
    assert {document.subset for document in documents(artifact)} >= {
        "Python Packages (source)",
        "Python Standard Library (source)",
        "Python Docstrings",
    }
    again = download(tmp_path / "other", text_bytes=1_000_000, shard_bytes=200_000)
    assert contents(artifact) == contents(again)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"url": "ftp://example.org/pile"}, "must be a folder or an http"),
        ({"url": "https:///pile"}, "must be a folder or an http"),
        ({"url": "https://example.org/pile?token=s3cret"}, "without"),
        ({"url": "https://me:s3cret@example.org/pile"}, "must not contain a user name or password"),
        ({"url": "a", "val_fraction": 0.5}, "val_fraction\n.*not permitted"),
        ({"patterns": ("a",), "include": ("b",)}, "include\n.*not permitted"),
        ({"text_bytes": 1, "text_field": "b"}, "text_field\n.*not permitted"),
        ({"patterns": ()}, "at least 1 item"),
        ({"patterns": ("a",), "val_fraction": 0.5, "test_fraction": 0.5}, "must leave something to train on"),
        ({"patterns": ("a",), "shard_bytes": 0}, "greater than or equal to 1"),
    ],
)
def test_config_that_cannot_work_is_refused_without_secrets(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message) as caught:
        download_config(**config)
    assert "s3cret" not in str(caught.value)


def test_config_identity_has_the_source_with_its_version_and_no_paths() -> None:
    assert download_config(patterns=("a",), max_bad_lines=3, max_bad_share=0.5).identity() == {
        "source": {
            "kind": "files",
            "version": 1,
            "text_field": ["text", "content", "body", "raw_content"],
            "subset_field": ["meta.pile_set_name", "pile_set_name"],
            "subset": "unlabelled",
            "id_field": "id",
            "keep_fields": ["url", "source"],
            "text_files": "document",
            "val_fraction": 0.01,
            "test_fraction": 0.01,
        },
        "sample_share": 1.0,
        "shard_bytes": None,
    }


def test_readers_of_the_files_are_part_of_the_key(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "b.jsonl").write_text("")
    found = corpus_sources(download_config(patterns=(f"{tmp_path}/*",)))
    assert {name: value for name, value in found.items() if name.startswith("reader:")} == {
        "reader:jsonl": "2",
        "reader:plain-text": "2",
    }


def test_stage_module_imports_nothing_heavy() -> None:
    code = (
        "import sys, tasks.download.stage; "
        "print([name for name in ('torch', 'datatrove', 'prefect', 'httpx', 'pyarrow') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3])
    assert found.stdout == "[]\n"
