import gzip
import logging
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import zstandard

from storage.errors import Fault, InputError
from storage.sources.http.server import FolderHandler, serve_folder
from tests.unit.tasks.downloads import contents, download, json_lines, list_checksums

pytestmark = pytest.mark.usefixtures("short_pauses")

# ---- bad data ------------------------------------------------------------------------------------

BROKEN = b'{"text": "broken\n'


@pytest.mark.parametrize("place", ["folder", "http"])
def test_bad_line_of_a_mirror_names_the_place_of_the_mirror(tmp_path: Path, place: str) -> None:
    mirror = tmp_path / "mirror"
    (mirror / "train").mkdir(parents=True)
    (mirror / "train" / "00.jsonl.zst").write_bytes(zstandard.compress(BROKEN))
    list_checksums(mirror)
    with serve_folder(mirror) as url:
        where = url if place == "http" else str(mirror)
        with pytest.raises(InputError, match=f"^{where.rstrip('/')}/train/00.jsonl.zst must hold a document"):
            download(tmp_path / "store", url=where, max_bad_lines=0)


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
    with (
        serve_folder(mirror) as url,
        pytest.raises(InputError, match=r"train/02.jsonl.zst must have sha256"),
    ):
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

    with (
        serve_folder(mirror, Changing) as url,
        pytest.raises(Fault, match="sources changed while the run began"),
    ):
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
    fetched = [path for path in asked if path != "/SHA256SUMS.txt"]
    assert len(fetched) == len({*fetched})
    # Whether the next file was fetched before the failure was noticed is a matter of luck.
    assert {"/train/03.jsonl.zst"} <= {*fetched} <= {"/train/03.jsonl.zst", "/val.jsonl.zst"}
