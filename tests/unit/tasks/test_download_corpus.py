import gzip
import hashlib
import json
import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from pydantic import ValidationError

import storage.sources.http.client
from storage.artifacts.store import Artifact, Store
from storage.errors import Fault, InputError
from storage.formats.documents import Document, read_documents
from storage.sources.http.server import FolderHandler, serve_folder
from tasks.core.execution import Execution
from tasks.core.runner import run_stage
from tasks.core.stage import RunContext
from tasks.download.config import DownloadConfig, corpus_sources
from tasks.download.stage import STAGE

Progress = list[tuple[int, int, str]]


def download(store: Path, workers: int = 1, progress: Progress | None = None, **config: Any) -> Artifact:
    steps = progress if progress is not None else []
    context = RunContext(
        Store(str(store)),
        run_id="run-1",
        recipe={},
        execution=Execution(workers=workers),
        progress=lambda done, total, unit: steps.append((done, total, unit)),
    )
    return run_stage(STAGE, download_config(**config), {}, context).artifact


def download_config(**fields: Any) -> DownloadConfig:
    """Build a config from the fields of the source and of the stage together."""
    own = {name: fields.pop(name) for name in ("shard_bytes", "max_bad_lines") if name in fields}
    kinds = {"url": "mirror", "patterns": "files", "text_bytes": "python-environment"}
    [kind] = [kinds[name] for name in fields if name in kinds]
    return DownloadConfig(source={"kind": kind, **fields}, **own)


def documents(artifact: Artifact, split: str = "") -> list[Document]:
    return [
        document for file in artifact.files("documents", split) for document in read_documents(artifact.open(file))
    ]


def contents(artifact: Artifact) -> dict[str, bytes]:
    return {file.part: artifact.open(file).read_bytes() for file in artifact.files("documents")}


def json_lines(texts: Iterable[str], subset: str) -> bytes:
    records = ({"text": text, "meta": {"pile_set_name": subset, "n": n}} for n, text in enumerate(texts))
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def list_checksums(folder: Path) -> None:
    files = sorted(path for path in folder.rglob("*.zst"))
    lines = (f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder)}\n" for path in files)
    (folder / "SHA256SUMS.txt").write_text("".join(lines))


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    folder = tmp_path / "mirror"
    (folder / "train").mkdir(parents=True)
    compress = zstandard.ZstdCompressor(write_checksum=True).compress
    for number in range(4):
        texts = [f"Text {n} of file {number}. " * (n % 7 + 1) for n in range(300)]
        (folder / "train" / f"{number:02d}.jsonl.zst").write_bytes(
            compress(json_lines(texts, f"Set {number % 2}"))
        )
    (folder / "val.jsonl.zst").write_bytes(compress(json_lines(["val one", ""], "Set 0")))
    (folder / "test.jsonl.zst").write_bytes(compress(json_lines(["test one"], "Set 1")))
    (folder / "provenance.tsv.zst").write_bytes(compress(b"more"))
    list_checksums(folder)
    return folder


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage.sources.http.client, "FIRST_WAIT_SECONDS", 0.01)


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


# ---- bad data ------------------------------------------------------------------------------------

GOOD, BROKEN, NOT_UTF8 = b'{"text": "good"}\n', b'{"text": "broken\n', b'{"text": "\xff"}\n'


def test_bad_line_fails_the_stage_and_a_higher_limit_continues_it(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD * 50 + BROKEN + GOOD * 50)
    config: dict[str, Any] = {
        "patterns": (str(path),),
        "shard_bytes": 300,
        "val_fraction": 0.0,
        "test_fraction": 0.0,
    }
    with pytest.raises(InputError, match=r"a.jsonl must hold a document in line 51 .*not JSON.*max_bad_lines"):
        download(tmp_path / "store", **config)
    artifact = download(tmp_path / "store", max_bad_lines=1, **config)
    assert len(artifact.manifest.attempts) == 2  # the shards before the bad line are those of the first attempt
    assert [document.id for document in documents(artifact)] == [
        f"a.jsonl:{line}" for line in range(1, 102) if line != 51
    ]
    assert artifact.counts["bad_lines"] == 1
    [entry] = [json.loads(line) for line in (artifact.report("quarantine.jsonl") or b"").splitlines()]
    assert entry == {
        "file": "a.jsonl",
        "line": 51,
        "offset": 50 * len(GOOD),
        "reason": entry["reason"],
        "excerpt": '{"text": "broken',
    }
    undisturbed = download(tmp_path / "other", max_bad_lines=1, **config)
    assert contents(undisturbed) == contents(artifact)


def test_bad_lines_of_all_files_are_counted_together(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_bytes(GOOD * 20 + NOT_UTF8 + GOOD * 20)
    config: dict[str, Any] = {"patterns": (f"{tmp_path}/*.jsonl",), "shard_bytes": 300}
    with pytest.raises(
        InputError, match=r"a.jsonl must hold a document in line 21 .*not UTF-8.* have 1 bad lines"
    ):
        download(tmp_path / "store", max_bad_lines=1, **config)
    assert download(tmp_path / "store", max_bad_lines=2, **config).counts["bad_lines"] == 2


@pytest.mark.parametrize("max_bad_lines", [0, 1])
def test_bad_line_names_its_file_among_those_of_equal_name(tmp_path: Path, max_bad_lines: int) -> None:
    for name, data in (("one", GOOD), ("two", BROKEN * 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jsonl").write_bytes(data)
    with pytest.raises(InputError, match=f"^{tmp_path}/two/a.jsonl must hold a document in line 1 "):
        download(tmp_path / "store", patterns=(f"{tmp_path}/*/a.jsonl",), max_bad_lines=max_bad_lines)


@pytest.mark.parametrize("place", ["folder", "http"])
def test_bad_line_of_a_mirror_names_the_place_of_the_mirror(tmp_path: Path, place: str) -> None:
    mirror = tmp_path / "mirror"
    (mirror / "train").mkdir(parents=True)
    (mirror / "train" / "00.jsonl.zst").write_bytes(zstandard.compress(BROKEN))
    list_checksums(mirror)
    with serve_folder(mirror) as url:
        where = url if place == "http" else str(mirror)
        with pytest.raises(InputError, match=f"^{where.rstrip('/')}/train/00.jsonl.zst must hold a document"):
            download(tmp_path / "store", url=where)


@pytest.mark.parametrize("suffix", ["zst", "gz"])
def test_truncated_file_fails_before_any_shard_is_written(tmp_path: Path, suffix: str) -> None:
    compress = {"zst": zstandard.compress, "gz": gzip.compress}[suffix]
    data = compress(json_lines([str(number) * 20 for number in range(5000)], "A"))
    path = tmp_path / f"a.jsonl.{suffix}"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=f"{path} must be a complete {suffix} file"):
        download(tmp_path / "store", patterns=(str(path),), max_bad_lines=1000)
    assert not list((tmp_path / "store" / "artifacts").rglob("*.zst"))


@pytest.mark.parametrize("content", [b"", b"\n\n", b'{"text": " "}\n'])
def test_sources_without_any_text_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(InputError, match=r"at least one document.*name others"):
        download(tmp_path / "store", patterns=(f"{tmp_path}/a.jsonl",))


@pytest.mark.parametrize("place", ["folder", "http"])
def test_wrong_checksum_stops_the_stage(tmp_path: Path, mirror: Path, place: str) -> None:
    file = mirror / "train" / "02.jsonl.zst"
    file.write_bytes(file.read_bytes()[:-1] + b"\0")
    with serve_folder(mirror) as url, pytest.raises(InputError, match=r"train/02.jsonl.zst must have sha256"):
        download(tmp_path / "store", url=url if place == "http" else str(mirror))


def test_file_without_checksum_is_left_out_and_named(
    tmp_path: Path, mirror: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    (mirror / "train" / "99.jsonl.zst").write_bytes(b"")
    assert download(tmp_path / "store", url=str(mirror)).counts["documents"] == 1202
    assert "not taken, since not listed or not included: train/99.jsonl.zst" in caplog.text


def test_sources_that_change_between_key_and_work_are_a_fault(
    tmp_path: Path, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Changing(FolderHandler):
        listings = 0

        def do_GET(self) -> None:
            if self.path == "/SHA256SUMS.txt":
                Changing.listings += 1
                if Changing.listings == 2:
                    (mirror / "val.jsonl.zst").unlink()
                    list_checksums(mirror)
            super().do_GET()

    with serve_folder(mirror, Changing) as url, pytest.raises(Fault, match="sources changed while the run began"):
        download(tmp_path / "store", url=url)


# ---- interruptions -------------------------------------------------------------------------------

RUN = """
import sys
from tasks.download.config import DownloadConfig
from tasks.download.stage import STAGE
from tasks.core.stage import RunContext
from tasks.core.runner import run_stage
from storage.artifacts.store import Store
from tasks.core.execution import Execution
if __name__ == "__main__":
    context = RunContext(Store(sys.argv[1]), "run-0", {}, Execution(workers=1))
    source = {"kind": "mirror", "url": sys.argv[2], "parallel_downloads": 1}
    run_stage(STAGE, DownloadConfig(source=source, shard_bytes=9_000), {}, context)
"""


def test_killed_download_continues_at_the_byte_where_it_was(tmp_path: Path, mirror: Path) -> None:
    """kill -9 while a file is half-way; the next run asks for the rest of it and for the files after it."""
    half_sent = threading.Event()
    killed = threading.Event()
    asked: list[tuple[str, str | None]] = []

    class Halting(FolderHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers.get("Range")))
            if self.path != "/train/02.jsonl.zst" or killed.is_set():
                return super().do_GET()
            path = mirror / "train" / "02.jsonl.zst"
            _, end = self._send_head(path)
            self.wfile.write(path.read_bytes()[: end // 2])
            half_sent.set()
            killed.wait(60)
            return None

    with serve_folder(mirror, Halting) as url:
        command = [sys.executable, "-c", RUN, str(tmp_path / "store"), url]
        process = subprocess.Popen(command, cwd=Path(__file__).parents[3])
        try:
            assert half_sent.wait(60)
            half = (mirror / "train" / "02.jsonl.zst").stat().st_size // 2
            while not (found := list(tmp_path.rglob("02.jsonl.zst.partial"))) or found[0].stat().st_size < half:
                assert process.poll() is None
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        killed.set()
        asked.clear()
        artifact = download(tmp_path / "store", url=url, shard_bytes=9_000, parallel_downloads=1)
    fetched = [item for item in asked if item[0] != "/SHA256SUMS.txt"]
    # Files come in the order of their names: test, train, val.
    assert fetched == [
        ("/train/02.jsonl.zst", f"bytes={half}-"),
        ("/train/03.jsonl.zst", None),
        ("/val.jsonl.zst", None),
    ]
    assert contents(artifact) == contents(download(tmp_path / "other", url=str(mirror), shard_bytes=9_000))


def test_failed_fetch_keeps_the_finished_files(tmp_path: Path, mirror: Path) -> None:
    asked: list[str] = []

    class Failing(FolderHandler):
        broken = True

        def do_GET(self) -> None:
            asked.append(self.path)
            if self.path == "/train/03.jsonl.zst" and Failing.broken:
                return self.send_error(404)
            return super().do_GET()

    with serve_folder(mirror, Failing) as url:
        with pytest.raises(InputError, match=r"train/03.jsonl.zst must be readable, the server answered 404"):
            download(tmp_path / "store", url=url, parallel_downloads=1)
        Failing.broken = False
        asked.clear()
        download(tmp_path / "store", url=url, parallel_downloads=1)
    assert [path for path in asked if path != "/SHA256SUMS.txt"] == ["/train/03.jsonl.zst", "/val.jsonl.zst"]


# ---- configuration -------------------------------------------------------------------------------


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
    assert download_config(patterns=("a",), max_bad_lines=3).identity() == {
        "source": {
            "kind": "files",
            "version": 1,
            "text_field": "text",
            "subset": "unlabelled",
            "val_fraction": 0.01,
            "test_fraction": 0.01,
        },
        "shard_bytes": 256 << 20,
    }


def test_readers_of_the_files_are_part_of_the_key(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "b.jsonl").write_text("")
    found = corpus_sources(download_config(patterns=(f"{tmp_path}/*",)))
    assert {name: value for name, value in found.items() if name.startswith("reader:")} == {
        "reader:jsonl": "1",
        "reader:plain-text": "1",
    }


def test_stage_module_imports_nothing_heavy() -> None:
    code = (
        "import sys, tasks.download.stage; "
        "print([name for name in ('torch', 'datatrove', 'prefect', 'httpx', 'pyarrow') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3])
    assert found.stdout == "[]\n"
