"""Fixtures: a local S3 server, and this process pointed at it."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from moto.server import ThreadedMotoServer


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """The address of an S3 server in this process, on a free port."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """A function that points this process at an S3 endpoint, and at nothing else of this machine's settings."""

    def use(endpoint: str) -> None:
        for name in ("AWS_PROFILE", "AWS_CA_BUNDLE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        monkeypatch.setenv("PILE_SCRATCH", str(tmp_path / "machine"))

    return use


@pytest.fixture(scope="session")
def s3_client(s3_endpoint: str) -> Any:
    """A second client of the same server, independent of s3fs."""
    session = botocore.session.Session()
    session.set_credentials("key", "secret")
    return session.create_client("s3", endpoint_url=s3_endpoint, region_name="us-east-1", verify=False)


@pytest.fixture
def s3_url(s3_endpoint: str, s3_client: Any, s3_settings: Callable[[str], None]) -> str:
    """The URL of an empty store on the local S3 server."""
    s3_settings(s3_endpoint)
    bucket = f"b-{uuid.uuid4().hex[:12]}"
    s3_client.create_bucket(Bucket=bucket)
    return f"s3://{bucket}/some/prefix"
