import errno
import hashlib
import http.server
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path

import pytest

import storage.sources.http.client
from storage.errors import Fault, InputError
from storage.sources.http.client import HttpMirror
from storage.sources.http.errors import MissingFile
from storage.sources.http.safety import check_redirect, shown
from storage.sources.http.server import serve_folder
from storage.sources.progress import DownloadProgress

DATA = random.Random(7).randbytes(3_000_000)
SHA256 = hashlib.sha256(DATA).hexdigest()
ETAG = '"version-1"'

Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


class Script:
    """A server that answers its n-th request with the n-th answer, and the last one for ever."""

    def __init__(self, answers: list[Answer]) -> None:
        self.answers = answers
        self.requests: list[dict[str, str]] = []
        self.times: list[float] = []
        self.url = ""


@contextmanager
def scripted(*answers: Answer) -> Iterator[Script]:
    script = Script(list(answers))

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            script.requests.append({"path": self.path, **dict(self.headers)})
            script.times.append(time.monotonic())
            answer = script.answers[min(len(script.requests), len(script.answers)) - 1]
            self.close_connection = True
            answer(self)

        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        script.url = f"http://127.0.0.1:{server.server_port}"
        yield script
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def status(code: int, **headers: str) -> Answer:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def body(data: bytes = DATA, *, cut: int | None = None, etag: str = ETAG, ranges: bool = True) -> Answer:
    """Send `data`, honouring Range and If-Range, and close the connection after `cut` bytes of it."""

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        wanted = handler.headers.get("Range")
        start = 0
        if ranges and wanted and handler.headers.get("If-Range", etag) == etag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(data):
                return status(416, Content_Range=f"bytes */{len(data)}")(handler)
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            handler.send_response(200)
        handler.send_header("ETag", etag)
        handler.send_header("Content-Length", str(len(data) - start))
        handler.end_headers()
        handler.wfile.write(data[start : len(data) if cut is None else start + cut])
        return None

    return answer


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage.sources.http.client, "FIRST_WAIT_SECONDS", 0.01)


def fetch(url: str, target: Path, *, sha256: str = SHA256, retries: int = 5) -> None:
    mirror = HttpMirror(url, timeout_seconds=10, retries=retries)
    try:
        mirror.fetch("train/00.jsonl.zst", sha256, target, DownloadProgress(1))
    finally:
        mirror.close()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "fetched" / "train" / "00.jsonl.zst"


@pytest.fixture
def partial(target: Path) -> Path:
    target.parent.mkdir(parents=True)
    return target.with_name("00.jsonl.zst.partial")


def test_fetch_whole_file_is_stored_under_its_name(target: Path) -> None:
    with scripted(body()) as server:
        fetch(server.url + "/mirror/", target)
        assert server.requests[0]["path"] == "/mirror/train/00.jsonl.zst"
        assert server.requests[0]["Accept-Encoding"] == "identity"
    assert target.read_bytes() == DATA
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_fetch_cut_connection_continues_at_the_last_byte(target: Path) -> None:
    with scripted(body(cut=1_000_000), body(cut=500_000), body()) as server:
        fetch(server.url, target)
        assert [request.get("Range") for request in server.requests] == [None, "bytes=1000000-", "bytes=1500000-"]
        assert [request.get("If-Range") for request in server.requests] == [None, ETAG, ETAG]
    assert target.read_bytes() == DATA


def test_fetch_after_a_failed_attempt_continues_what_is_on_disk(target: Path) -> None:
    with scripted(body(cut=2_000_000), body()) as server:
        with pytest.raises(Fault, match="what has arrived is kept"):
            fetch(server.url, target, retries=0)
        assert not target.exists()
        fetch(server.url, target, retries=0)
        assert server.requests[1]["Range"] == "bytes=2000000-"
    assert target.read_bytes() == DATA


def test_fetch_steady_progress_is_not_limited_by_retries(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage.sources.http.client, "PROGRESS_BYTES", 100_000)
    with scripted(body(cut=300_000)) as server:
        fetch(server.url, target, retries=1)
        assert len(server.requests) == 10
    assert target.read_bytes() == DATA


def test_fetch_server_without_ranges_starts_over(target: Path) -> None:
    with scripted(body(cut=1_000_000), body(ranges=False)) as server:
        fetch(server.url, target)
        assert server.requests[1]["Range"] == "bytes=1000000-"
    assert target.read_bytes() == DATA


def test_fetch_file_changed_meanwhile_starts_over(target: Path) -> None:
    old = bytes(len(DATA))
    with scripted(body(old, cut=1_000_000, etag='"version-0"'), body()) as server:
        fetch(server.url, target)
        assert server.requests[1]["If-Range"] == '"version-0"'
        assert len(server.requests) == 2
    assert target.read_bytes() == DATA


def test_fetch_complete_partial_needs_no_more_bytes(target: Path, partial: Path) -> None:
    partial.write_bytes(DATA)
    with scripted(body()) as server:
        fetch(server.url, target)
        assert [request.get("Range") for request in server.requests] == [f"bytes={len(DATA)}-"]
    assert target.read_bytes() == DATA


def test_fetch_partial_longer_than_the_file_starts_over(target: Path, partial: Path) -> None:
    partial.write_bytes(DATA + b"more")
    with scripted(body()) as server:
        fetch(server.url, target)
        assert [request.get("Range") for request in server.requests] == [f"bytes={len(DATA) + 4}-", None]
    assert target.read_bytes() == DATA


@pytest.mark.parametrize("answer", ["bytes 7-2999999/3000000", "bytes 1000-2999999/*", "nonsense", ""])
def test_fetch_wrong_content_range_starts_over(target: Path, partial: Path, answer: str) -> None:
    partial.write_bytes(DATA[:1000])
    with scripted(status(206, Content_Range=answer), body()) as server:
        fetch(server.url, target)
        assert [request.get("Range") for request in server.requests] == ["bytes=1000-", None]
    assert target.read_bytes() == DATA


def test_fetch_wrong_checksum_names_file_and_both_sums(target: Path) -> None:
    with scripted(body()) as server:
        with pytest.raises(InputError, match=f"train/00.jsonl.zst must have sha256 {'0' * 64}.*found {SHA256}"):
            fetch(server.url, target, sha256="0" * 64)
        assert len(server.requests) == 1
    assert list(target.parent.glob("*.zst*")) == [target.with_name("00.jsonl.zst.partial.version")]


def test_fetch_damaged_partial_is_fetched_once_more_from_zero(target: Path, partial: Path) -> None:
    partial.write_bytes(b"\0" * 1000)
    with scripted(body()) as server:
        fetch(server.url, target)
        assert [request.get("Range") for request in server.requests] == ["bytes=1000-", None]
    assert target.read_bytes() == DATA


def test_fetch_wrong_checksum_after_continuing_ends_after_the_second_try(target: Path, partial: Path) -> None:
    partial.write_bytes(DATA[:1000])
    # The second try is cut and continued as well, and must be the last one all the same.
    with scripted(body(), body(cut=10), body()) as server:
        with pytest.raises(InputError, match=SHA256):
            fetch(server.url, target, sha256="0" * 64)
        assert [request.get("Range") for request in server.requests] == ["bytes=1000-", None, "bytes=10-"]


def test_fetch_finished_file_is_not_asked_for_again(target: Path) -> None:
    with scripted(body()) as server:
        fetch(server.url, target)
        fetch(server.url, target)
        assert len(server.requests) == 1
        target.write_bytes(b"damaged")
        fetch(server.url, target)
        assert len(server.requests) == 2
    assert target.read_bytes() == DATA


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
def test_fetch_busy_server_is_asked_again(target: Path, code: int) -> None:
    with scripted(status(code), status(code), body()) as server:
        fetch(server.url, target)
        assert len(server.requests) == 3
    assert target.read_bytes() == DATA


def test_fetch_server_that_stays_busy_is_a_fault(target: Path) -> None:
    with scripted(status(503)) as server:
        with pytest.raises(Fault, match=r"4 attempts failed .*503 Service Unavailable"):
            fetch(server.url, target, retries=3)
        assert len(server.requests) == 4


def test_fetch_retry_after_is_obeyed(target: Path) -> None:
    with scripted(status(429, Retry_After="1"), body()) as server:
        fetch(server.url, target)
        assert server.times[1] - server.times[0] >= 1  # 0.01 s without the header


def test_fetch_retry_after_as_a_date_is_obeyed(target: Path) -> None:
    later = formatdate(time.time() + 2, usegmt=True)
    with scripted(status(503, Retry_After=later), body()) as server:
        fetch(server.url, target)
        assert server.times[1] - server.times[0] >= 0.9  # the date has whole seconds


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410])
def test_fetch_refusal_fails_at_once(target: Path, code: int) -> None:
    with scripted(status(code)) as server:
        with pytest.raises(InputError, match=f"train/00.jsonl.zst must be readable, the server answered {code}"):
            fetch(server.url, target)
        assert len(server.requests) == 1


def test_fetch_without_a_server_is_one_clear_fault(target: Path) -> None:
    with scripted(body()) as server:
        url = server.url
    with pytest.raises(Fault, match=r"must be reachable, but 3 attempts failed .*refused"):
        fetch(url, target, retries=2)


def test_fetch_silent_server_times_out(target: Path) -> None:
    release = threading.Event()
    with scripted(lambda handler: release.wait(30) and None) as server:
        mirror = HttpMirror(server.url, timeout_seconds=0.2, retries=1)
        with pytest.raises(Fault, match=r"2 attempts failed .*timed out"):
            mirror.fetch("a", SHA256, target, DownloadProgress(1))
        mirror.close()
        release.set()


def test_fetch_full_disk_comes_through(target: Path, partial: Path) -> None:
    partial.symlink_to("/dev/full")
    with scripted(body()) as server:
        with pytest.raises(OSError, match="No space left") as caught:
            fetch(server.url, target)
        assert caught.value.errno == errno.ENOSPC
        assert len(server.requests) == 1


def test_fetch_stopped_by_another_failure_keeps_what_it_has(target: Path) -> None:
    progress = DownloadProgress(1)
    progress.stop.set()
    with scripted(body()) as server:
        mirror = HttpMirror(server.url)
        with pytest.raises(Fault, match="was stopped"):
            mirror.fetch("a", SHA256, target, progress)
        mirror.close()
    assert target.with_name(target.name + ".partial").stat().st_size > 0


def test_redirect_is_followed_with_its_range(target: Path, partial: Path) -> None:
    partial.write_bytes(DATA[:1000])
    with scripted(status(302, Location="/elsewhere?signature=s3cret"), body()) as server:
        fetch(server.url, target)
        assert server.requests[1]["path"] == "/elsewhere?signature=s3cret"
        assert server.requests[1]["Range"] == "bytes=1000-"
    assert target.read_bytes() == DATA


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://example.org/a", "data:text/plain,abc"])
def test_redirect_to_another_scheme_is_refused(target: Path, location: str) -> None:
    with scripted(status(302, Location=location)) as server:
        with pytest.raises(InputError, match="must redirect to https or http"):
            fetch(server.url, target)
        assert len(server.requests) == 1


def test_redirect_loop_ends(target: Path) -> None:
    with scripted(status(302, Location="/again")) as server:
        with pytest.raises(InputError, match="more than 5 redirects"):
            fetch(server.url, target)
        assert len(server.requests) == 6


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("https://example.org/a", "http://example.org/a"),
        ("http://example.org/a", "http://127.0.0.1/a"),
        ("http://example.org/a", "http://localhost:8080/a"),
        ("https://example.org/a", "https://169.254.169.254/latest"),
        ("https://example.org/a", "https://[::1]/a"),
    ],
)
def test_redirect_to_a_less_safe_place_is_refused(source: str, target: str) -> None:
    with pytest.raises(InputError, match="must redirect to"):
        check_redirect(source, target)


def test_redirect_to_encryption_is_allowed() -> None:
    check_redirect("http://example.org/a", "https://cdn.example.org/a")


def test_secrets_are_in_no_message_and_no_log(target: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("httpcore").setLevel(logging.WARNING)  # as without a debugger's settings
    with scripted(status(302, Location="/b?X-Signature=s3cret"), status(503)) as server:
        url = server.url.replace("http://", "http://user:s3cret@")
        with pytest.raises(Fault) as caught:
            fetch(url, target, retries=1)
        assert server.requests[0]["Authorization"].startswith("Basic ")
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in caplog.text
    assert "503" in caplog.text


def test_shown_url_has_no_credentials_and_no_query() -> None:
    assert shown("https://user:pass@example.org:8443/a/?token=abc#d") == "https://example.org:8443/a"


def test_password_of_the_host_comes_from_netrc(
    target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password s3cret\n")
    with scripted(body()) as server:
        fetch(server.url, target)
        assert server.requests[0]["Authorization"] == "Basic bWU6czNjcmV0"


def test_read_small_file_is_bounded() -> None:
    with scripted(body(b"x" * 1000)) as server:
        mirror = HttpMirror(server.url)
        assert mirror.read("a", 1000) == b"x" * 1000
        with pytest.raises(InputError, match="at most 999 bytes"):
            mirror.read("a", 999)
        mirror.close()


def test_read_missing_file_is_told_apart() -> None:
    with scripted(status(404)) as server:
        mirror = HttpMirror(server.url)
        with pytest.raises(MissingFile):
            mirror.read("a", 1000)
        mirror.close()


def test_meter_counts_unknown_files_as_average() -> None:
    progress = DownloadProgress(4)
    assert progress.totals() == (0, 0)
    progress.update("a", 10, 100)
    progress.update("b", 50, 300)
    assert progress.totals() == (60, 800)


def test_fetch_from_our_own_server_continues(tmp_path: Path, target: Path, partial: Path) -> None:
    served = tmp_path / "served" / "train"
    served.mkdir(parents=True)
    (served / "00.jsonl.zst").write_bytes(DATA)
    partial.write_bytes(DATA[:12345])
    with serve_folder(tmp_path / "served") as url:
        fetch(url, target)
    assert target.read_bytes() == DATA
