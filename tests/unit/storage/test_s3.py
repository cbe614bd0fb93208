import errno
import hashlib
import http.server
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from storage.artifacts.store import Store
from storage.backends import s3, s3_filesystem
from storage.backends.registry import open_backend
from storage.backends.s3 import S3Backend
from storage.errors import Fault, InputError, StoreAwayError

CALLS: dict[str, Callable[[S3Backend, Path], object]] = {
    "read": lambda files, local: files.read("a/b"),
    "write": lambda files, local: files.write("a/b", local.read_bytes()),
    "create": lambda files, local: files.create("a/b", local.read_bytes()),
    "put": lambda files, local: files.put(local, "a/b"),
    "fetch": lambda files, local: files.fetch("a/b", local.with_suffix(".copy")),
    "size": lambda files, local: files.size("a/b"),
    "digest": lambda files, local: files.digest("a/b"),
    "list": lambda files, local: list(files.list("a")),
    "delete": lambda files, local: files.delete("a/b"),
    "unfinished": lambda files, local: list(files.unfinished()),
    "abandon": lambda files, local: files.abandon("a/b?uploadId=1"),
}


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """A finished file of this machine."""
    path = tmp_path / "finished"
    path.write_bytes(b"finished")
    return path


@pytest.fixture
def no_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up after one request: for tests of what is said then."""
    monkeypatch.setattr(s3_filesystem, "TRIES", 1)


# ---- other clients of the same store -----------------------------------------------------------------


def test_s3_sees_what_another_client_writes_and_deletes(s3_url: str) -> None:
    first, second = S3Backend(s3_url), S3Backend(s3_url)
    first.write("a/1", b"1")
    assert [path for path, *_ in first.list("a")] == ["a/1"]
    with pytest.raises(FileNotFoundError):
        first.read("a/2")
    second.write("a/2", b"22")
    second.write("a/1", b"longer")
    assert [(path, size) for path, size, _ in first.list("a")] == [("a/1", 6), ("a/2", 2)]
    assert (first.size("a/1"), first.read("a/1"), first.read("a/2")) == (6, b"longer", b"22")
    second.delete("a/1")
    assert [path for path, *_ in first.list("a")] == ["a/2"]
    with pytest.raises(FileNotFoundError):
        first.size("a/1")


def test_s3_store_may_be_a_whole_bucket(s3_url: str) -> None:
    files = open_backend(s3_url.removesuffix("/some/prefix"))
    files.write("a/b", b"x")
    assert [path for path, *_ in files.list("")] == [path for path, *_ in files.list("a")] == ["a/b"]


def test_s3_leaves_out_the_objects_that_stand_for_folders(s3_url: str, s3_client: Any) -> None:
    files = S3Backend(s3_url)
    files.write("pins/a.json", b"x")
    for name in ("pins/", "pins/folder/"):
        s3_client.put_object(Bucket=files.bucket, Key=f"{files.folder}/{name}", Body=b"")
    assert [path for path, *_ in files.list("pins")] == ["pins/a.json"]


def test_s3_prefix_with_files_is_not_a_file(s3_url: str) -> None:
    files = S3Backend(s3_url)
    files.write("a/b/c", b"x")
    for call in (files.size, files.read, files.digest):
        with pytest.raises(FileNotFoundError):
            call("a/b")


def test_s3_hashes_an_object_piece_by_piece(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files = S3Backend(s3_url)
    for size in (0, 6, 7, 8):
        data = bytes(range(size))
        files.write("a", data)
        monkeypatch.setattr(s3, "PIECE_BYTES", 7)
        assert files.digest("a") == (size, hashlib.sha256(data).hexdigest())


def test_s3_finds_uploads_that_were_cut_off_and_removes_them(s3_url: str, s3_client: Any) -> None:
    files = S3Backend(s3_url)
    started = {}
    for key in (f"{files.folder}/data/a?b=c.bin", f"{files.folder}/data/z", "elsewhere/data"):
        upload = s3_client.create_multipart_upload(Bucket=files.bucket, Key=key)["UploadId"]
        s3_client.upload_part(Bucket=files.bucket, Key=key, UploadId=upload, PartNumber=1, Body=b"12345")
        started[key] = upload
    found = {name: size for name, size, _ in files.unfinished()}
    assert sorted(name.rpartition("?uploadId=")[0] for name in found) == ["data/a?b=c.bin", "data/z"]
    assert set(found.values()) == {5}
    for name in found:
        files.abandon(name)
        files.abandon(name)
    assert list(files.unfinished()) == []
    left = s3_client.list_multipart_uploads(Bucket=files.bucket)["Uploads"]
    assert [upload["Key"] for upload in left] == ["elsewhere/data"]


# ---- exclusive creation, as servers answer it -----------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EINVAL, "At least one of the pre-conditions you specified did not hold"),
        FileExistsError("exists"),
        OSError(errno.EIO, "conflict"),
    ],
    ids=["EINVAL", "exists", "conflict"],
)
def test_s3_create_that_is_refused_says_so(s3_url: str, monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    files = S3Backend(s3_url)
    files.write("a", b"theirs")
    if error.errno == errno.EIO:
        answer = {"Error": {"Code": "ConditionalRequestConflict"}}
        error.__cause__ = ClientError(answer, "PutObject")  # type: ignore[arg-type]

    def refuse(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(files.filesystem, "pipe_file", refuse)
    assert not files.create("a", b"mine")
    assert files.create("a", b"theirs")  # a first try arrived and its answer was lost
    files.delete("a")
    assert not files.create("a", b"mine")


def test_s3_create_that_fails_for_another_reason_is_a_fault(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files = S3Backend(s3_url)

    def refuse(*arguments: object, **options: object) -> None:
        answer = {"Error": {"Code": "InvalidArgument"}}
        raise OSError(errno.EINVAL, "bad") from ClientError(answer, "PutObject")  # type: ignore[arg-type]

    monkeypatch.setattr(files.filesystem, "pipe_file", refuse)
    with pytest.raises(Fault):
        files.create("a", b"mine")


# ---- a store that cannot be reached never looks empty ------------------------------------------------------


@pytest.mark.parametrize("call", CALLS)
def test_s3_server_that_is_gone_is_a_fault(
    call: str, local: Path, s3_settings: Callable[[str], None], no_retries: None
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        s3_settings(f"http://127.0.0.1:{unused.getsockname()[1]}")
    with pytest.raises(StoreAwayError, match=r"store must answer.*AWS_ENDPOINT_URL"):
        CALLS[call](S3Backend("s3://bucket/prefix"), local)
    assert local.exists()


@pytest.mark.parametrize("call", CALLS)
def test_s3_bucket_that_is_missing_is_bad_input(call: str, local: Path, s3_url: str) -> None:
    with pytest.raises(InputError, match="create the bucket 'no-such-bucket'"):
        CALLS[call](S3Backend("s3://no-such-bucket/prefix"), local)


def test_s3_local_file_that_is_missing_is_a_fault(local: Path, s3_url: str) -> None:
    files = S3Backend(s3_url)
    files.write("a/b", b"x")
    with pytest.raises(Fault, match="nowhere"):
        files.put(local.parent / "nowhere", "a/b")
    with pytest.raises(Fault, match="nowhere"):
        files.fetch("a/b", local.parent / "nowhere" / "copy")


def test_s3_without_credentials_is_bad_input(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(InputError, match="set AWS_ACCESS_KEY_ID"):
        S3Backend(s3_url).read("a")


@pytest.mark.parametrize(
    "endpoint", ["localhost", "localhost:9000", "http://", "ftp://127.0.0.1/", "http://no-such-host.invalid:9000"]
)
def test_s3_endpoint_that_is_no_address_is_bad_input_until_the_store_has_answered(
    endpoint: str, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(InputError, match="AWS_ENDPOINT_URL"):
        S3Backend(s3_url).probe()
    if "no-such-host" in endpoint:  # a name server may be away in the middle of a run
        known = S3Backend(s3_url)
        known.must_exist = True
        with pytest.raises(StoreAwayError):
            known.read("a")


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket//x",
        "s3://bucket//",
        "s3:///x",
        "s3://bucket/a//b",
        "s3://bucket/./x",
        "s3://bucket/a/../b",
        "s3://bucket/x?region=eu",
        "s3://bucket/x#y",
        "s3://b/x",
        "s3://my bucket/x",
        "s3://host:9000/bucket",
        "s3://a..b/x",
    ],
)
def test_s3_url_that_tools_would_read_differently_is_bad_input(url: str) -> None:
    with pytest.raises(InputError, match=r"write s3://|must"):
        open_backend(url)


def test_s3_url_may_end_in_a_slash() -> None:
    assert open_backend("s3://bucket/x/").url == "s3://bucket/x"


class FaultServer:
    """An S3 endpoint that gives the same answer to everything, or fails a few times and then lets pass."""

    def __init__(self) -> None:
        self.requests = 0
        self.status, self.code = 503, "ServiceUnavailable"
        self.failures = 1_000_000
        self.text = b"ok"
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                outer.requests += 1
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                failed = outer.requests <= outer.failures
                body = (
                    f"<Error><Code>{outer.code}</Code><Message>m</Message></Error>".encode()
                    if failed
                    else outer.text
                )
                self.send_response(outer.status if failed else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = answer

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture
def fault_server(s3_settings: Callable[[str], None]) -> Iterator[FaultServer]:
    server = FaultServer()
    s3_settings(server.url)
    yield server
    server.server.shutdown()
    server.server.server_close()


@pytest.mark.parametrize(
    ("call", "code"), [("read", "SlowDown"), ("write", "ServiceUnavailable"), ("list", "InternalError")]
)
def test_s3_server_that_only_fails_is_away_after_few_requests(
    call: str, code: str, local: Path, fault_server: FaultServer
) -> None:
    fault_server.code = code
    fault_server.status = 500 if code == "InternalError" else 503
    with pytest.raises(StoreAwayError, match="store must answer"):
        CALLS[call](S3Backend("s3://bucket/prefix"), local)
    assert 1 < fault_server.requests <= 2 * s3_filesystem.TRIES


@pytest.mark.parametrize("size", [1, 20 << 20], ids=["small", "large"])
@pytest.mark.parametrize("call", ["read", "write", "create", "put", "list", "delete"])
def test_s3_server_that_says_nothing_is_away(
    call: str, size: int, local: Path, s3_settings: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_filesystem, "ANSWER_SECONDS", 1)
    monkeypatch.setattr(s3_filesystem, "SLOWEST_UPLOAD", 20 << 20)
    local.write_bytes(bytes(size))
    with socket.create_server(("127.0.0.1", 0)) as server:  # the system takes connections, nobody reads
        s3_settings(f"http://127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(StoreAwayError, match="store must answer"):
            CALLS[call](S3Backend("s3://bucket/prefix"), local)


def test_s3_server_that_fails_for_a_moment_is_asked_again(fault_server: FaultServer) -> None:
    fault_server.failures = s3_filesystem.TRIES - 1
    assert S3Backend("s3://bucket/prefix").read("a") == b"ok"


def test_s3_web_site_is_bad_input(fault_server: FaultServer) -> None:
    fault_server.failures = 0  # says ok to everything, in no XML
    fault_server.text = b"<html><body>hello</body></html>"
    for call in (S3Backend.probe, lambda files: list(files.list("a"))):
        with pytest.raises(InputError, match="must be the address of an S3 server"):
            call(S3Backend("s3://bucket/prefix"))


@pytest.mark.parametrize(
    ("status", "code"), [(301, "PermanentRedirect"), (400, "AuthorizationHeaderMalformed")], ids=["301", "400"]
)
@pytest.mark.parametrize("call", ["read", "write", "list"])
def test_s3_bucket_of_another_region_is_bad_input(
    call: str, status: int, code: str, local: Path, fault_server: FaultServer
) -> None:
    fault_server.status, fault_server.code = status, code
    with pytest.raises(InputError, match="set AWS_DEFAULT_REGION"):
        CALLS[call](S3Backend("s3://bucket/prefix"), local)


@pytest.mark.parametrize(
    ("call", "code"),
    [
        ("read", "AccessDenied"),
        ("size", "AccessDenied"),
        ("write", "SignatureDoesNotMatch"),
        ("list", "InvalidAccessKeyId"),
        ("create", "ExpiredToken"),
    ],
)
def test_s3_that_refuses_the_credentials_is_bad_input_at_once(
    call: str, code: str, local: Path, fault_server: FaultServer
) -> None:
    fault_server.status, fault_server.code = 403, code
    with pytest.raises(InputError, match=r"set AWS_ACCESS_KEY_ID|credentials of AWS_ACCESS_KEY_ID"):
        CALLS[call](S3Backend("s3://bucket/prefix"), local)
    assert fault_server.requests == 1


def test_store_on_a_server_that_is_down_finds_a_fault_and_not_nothing(
    fault_server: FaultServer, no_retries: None
) -> None:
    store = Store("s3://bucket/prefix")
    looks: list[Callable[[], object]] = [
        lambda: store.find("filter", "0" * 16),
        lambda: store.pins(),
        lambda: list(store.runs()),
        lambda: list(store.manifests()),
        lambda: store.lease("filter", "0" * 16, "run", lambda: None).try_acquire(),
    ]
    for look in looks:
        with pytest.raises(Fault):
            look()


def test_s3_url_with_credentials_is_refused_without_repeating_them() -> None:
    with pytest.raises(InputError, match="must not contain credentials") as refused:
        open_backend("s3://key:hidden@bucket/prefix")
    assert "hidden" not in str(refused.value)
