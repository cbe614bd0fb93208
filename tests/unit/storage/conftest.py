"""Stores on the local disk and on a local S3 server, writers and files for them, artifacts, an HTTP server."""

import hashlib
import socket
import ssl
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from storage.artifacts.store import Artifact, Store
from storage.artifacts.writer import ArtifactWriter
from tests.s3_server import s3_client, s3_endpoint, s3_settings, s3_url  # noqa: F401 - fixtures
from tests.unit.storage.stored import KEY, STAGE, MakeArtifact


@pytest.fixture(params=["local", "s3"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty store, once on the local disk and once on S3."""
    return str(tmp_path / "store") if request.param == "local" else request.getfixturevalue("s3_url")


@pytest.fixture
def store(store_url: str) -> Store:
    """An empty store, once on the local disk and once on S3."""
    return Store(store_url)


@pytest.fixture
def local_store(tmp_path: Path) -> Store:
    """An empty store on the local disk."""
    return Store(str(tmp_path / "store"))


@pytest.fixture
def writer(store: Store) -> ArtifactWriter:
    """A writer in an empty store, once on the local disk and once on S3."""
    return ArtifactWriter(store, STAGE, KEY)


@pytest.fixture
def local_writer(local_store: Store) -> ArtifactWriter:
    """A writer in an empty store on the local disk."""
    return ArtifactWriter(local_store, STAGE, KEY)


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., Path]:
    """A function that makes a finished local file."""

    def make(content: bytes = b"content", name: str = "documents.jsonl.zst") -> Path:
        path = Path(tmp_path, "finished", hashlib.sha256(content).hexdigest()[:8], name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    return make


@pytest.fixture
def publish() -> Callable[..., Artifact]:
    """A function that publishes what a writer has committed."""

    def publish(writer: ArtifactWriter, **fields: object) -> Artifact:
        defaults = {
            "reports": (),
            "version": 1,
            "config": {},
            "inputs": {},
            "sources": {},
            "recipe": {},
            "run_id": "run",
            "code_commit": "",
            "libraries": {},
            "started": "",
            "seconds": 0.0,
        }
        parts = fields.pop("parts", None) or writer.parts().values()
        return writer.publish(parts, **{**defaults, **fields})

    return publish


@pytest.fixture
def make_artifact(tmp_path: Path, publish: Callable[..., Artifact]) -> MakeArtifact:
    """A function that makes an artifact of one file per part: part -> content."""

    def make(
        store: Store, stage: str, key: str, parts: Mapping[str, bytes] | None = None, **fields: object
    ) -> Artifact:
        writer = ArtifactWriter(store, stage, key)
        for part, content in (parts or {"train-00000": f"{stage} {key}".encode()}).items():
            local = tmp_path / f"{uuid.uuid4().hex}.txt"
            local.write_bytes(content)
            writer.commit(part, {"text": local}, counts={"documents": 1})
        reports = [writer.report("report.md", b"# Report")]
        artifact = publish(writer, reports=reports, **fields)
        store.remove_scratch(stage, key)
        return artifact

    return make


class RawServer:
    """Answers its n-th request with the n-th bytes, to the letter, and the last ones for ever; then hangs up."""

    def __init__(self, answers: tuple[bytes, ...], context: ssl.SSLContext | None) -> None:
        self.answers = answers
        self.requests: list[bytes] = []
        self._context = context
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])

    def serve(self) -> None:
        """Answer until the socket is closed."""
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                try:
                    self._answer(connection)
                except OSError:
                    continue

    def _answer(self, connection: socket.socket) -> None:
        connection.settimeout(10)
        if self._context:
            connection = self._context.wrap_socket(connection, server_side=True)
        head = b""
        while b"\r\n\r\n" not in head:
            if not (data := connection.recv(65536)):
                return
            head += data
        self.requests.append(head)
        connection.sendall(self.answers[min(len(self.requests), len(self.answers)) - 1])
        connection.shutdown(socket.SHUT_WR)

    @contextmanager
    def running(self) -> Iterator["RawServer"]:
        """Serve while the context lasts."""
        thread = threading.Thread(target=self.serve, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()
            thread.join()


@pytest.fixture
def raw_server() -> Iterator[Callable[..., RawServer]]:
    """A function from answers, as bytes, to a running server on the loopback address."""
    with ExitStack() as stack:
        yield lambda *answers, context=None: stack.enter_context(RawServer(answers, context).running())
