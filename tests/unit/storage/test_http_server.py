from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from storage.sources.http.server import serve_folder

DATA = bytes(range(256)) * 40


@pytest.fixture
def client(tmp_path: Path) -> Iterator[httpx.Client]:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "served" / "train").mkdir(parents=True)
    (tmp_path / "served" / "train" / "a b.zst").write_bytes(DATA)
    with serve_folder(tmp_path / "served") as url, httpx.Client(base_url=url, trust_env=False) as client:
        yield client


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("bytes=0-", DATA),
        ("bytes=100-", DATA[100:]),
        ("bytes=5-9", DATA[5:10]),
        ("bytes=10000-99999", DATA[10000:]),
    ],
)
def test_range_is_answered_with_that_part(client: httpx.Client, wanted: str, expected: bytes) -> None:
    answer = client.get("/train/a%20b.zst", headers={"Range": wanted})
    assert (answer.status_code, answer.content) == (206, expected)
    start = int(wanted.removeprefix("bytes=").split("-")[0])
    assert answer.headers["Content-Range"] == f"bytes {start}-{start + len(expected) - 1}/{len(DATA)}"


def test_range_behind_the_end_is_refused_with_the_size(client: httpx.Client) -> None:
    answer = client.get("/train/a%20b.zst", headers={"Range": f"bytes={len(DATA)}-"})
    assert (answer.status_code, answer.headers["Content-Range"]) == (416, f"bytes */{len(DATA)}")


def test_range_of_another_version_gets_the_whole_file(client: httpx.Client) -> None:
    tag = client.head("/train/a%20b.zst").headers["ETag"]
    same = client.get("/train/a%20b.zst", headers={"Range": "bytes=5-", "If-Range": tag})
    other = client.get("/train/a%20b.zst", headers={"Range": "bytes=5-", "If-Range": '"other"'})
    assert (same.status_code, other.status_code) == (206, 200)
    assert other.content == DATA


def test_head_sends_no_content(client: httpx.Client) -> None:
    answer = client.head("/train/a%20b.zst")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["Content-Length"] == str(len(DATA))


@pytest.mark.parametrize(
    "path", ["/", "/train", "/nothing", "/../secret", "/%2e%2e/secret", "/train/..%2f..%2fsecret"]
)
def test_everything_but_files_of_the_folder_is_missing(client: httpx.Client, path: str) -> None:
    assert client.get(path).status_code == 404


@pytest.mark.parametrize(
    "wanted", ["bytes=٣-", "bytes=²-5", f"bytes={'9' * 5000}-", "bytes=0-1,3-4", "bytes=-5", "x"]
)
def test_range_that_cannot_be_read_gets_the_whole_file(client: httpx.Client, wanted: str) -> None:
    answer = client.get("/train/a%20b.zst", headers={"Range": wanted.encode()})
    assert (answer.status_code, answer.content) == (200, DATA)


@pytest.mark.parametrize("path", ["/a%00b", "/" + "a" * 5000])
def test_name_that_no_file_can_have_is_missing(client: httpx.Client, path: str) -> None:
    assert client.get(path).status_code == 404
