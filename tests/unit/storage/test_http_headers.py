import hashlib
import re
import time
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import storage.sources.http.client
from storage.errors import Fault, InputError
from storage.sources.http.client import HttpMirror
from storage.sources.http.headers import (
    MAX_RETRY_AFTER_SECONDS,
    byte_range,
    content_length,
    content_range,
    file_version,
    known_version,
    printable,
    retry_after,
)
from storage.sources.progress import DownloadProgress

BODY = b"0123456789"
SHA256 = hashlib.sha256(BODY).hexdigest()
DATE = "Wed, 21 Oct 2015 07:28:00 GMT"
NO_NUMBERS = [
    "",
    "²",
    "٣",
    "３",
    "-5",
    "+5",
    "5_0",
    "5 0",
    "5,5",
    "0x5",
    "1e9",
    "nan",
    "inf",
    "5.5",
    "9" * 19,
    "9" * 5000,
]


@pytest.mark.parametrize("value", [*NO_NUMBERS, "Wed, 99 Oct 2015 07:28:00 GMT", "Wed, 21 Oct 0000 07:28:00 GMT"])
def test_retry_after_that_is_malformed_is_no_wish(value: str) -> None:
    assert retry_after({"Retry-After": value}) == 0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("0", 0), ("007", 7), (" 5\t", 5), ("9" * 18, MAX_RETRY_AFTER_SECONDS), (DATE, 0)],
)
def test_retry_after_is_bounded(value: str, seconds: float) -> None:
    assert retry_after({"Retry-After": value}) == seconds


def test_retry_after_as_a_date_is_the_time_until_then() -> None:
    assert 58 <= retry_after({"Retry-After": formatdate(time.time() + 60, usegmt=True)}) <= 60


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_content_length_that_is_malformed_is_unknown(value: str) -> None:
    assert content_length({"Content-Length": value}) == 0


def test_content_length_counts_only_where_it_frames_the_body() -> None:
    assert content_length({"Content-Length": "12"}) == 12
    assert content_length({"Content-Length": "12", "Transfer-Encoding": "chunked"}) == 0
    assert content_length({}) == 0


@pytest.mark.parametrize(
    "value",
    [f"bytes {number}-9/10" for number in NO_NUMBERS]
    + [f"bytes 0-9/{number}" for number in NO_NUMBERS]
    + ["bytes 0-/10", "bytes -9/10", "bytes=0-9/10", "bytes 0-9", "lines 0-9/10", "bytes 0-9/10, bytes 0-9/10"],
)
def test_content_range_that_is_malformed_says_nothing(value: str) -> None:
    assert content_range({"Content-Range": value}) == (None, None)


def test_content_range_says_start_and_total() -> None:
    assert content_range({"Content-Range": "bytes 3-9/10"}) == (3, 10)
    assert content_range({"Content-Range": "bytes 3-9/*"}) == (3, None)
    assert content_range({"Content-Range": "bytes */10"}) == (None, 10)


@pytest.mark.parametrize(
    "value",
    [f"bytes={number}-" for number in NO_NUMBERS]
    + [f"bytes=0-{number}" for number in NO_NUMBERS if number]
    + ["bytes=-5", "bytes=0-1,3-4", "bytes 0-"],
)
def test_range_that_is_malformed_is_none(value: str) -> None:
    assert byte_range(value) is None


@pytest.mark.parametrize("value", ['"abc"', '""', f'"{"x" * 254}"', '"a,b;c\\"', DATE])
def test_version_that_can_be_sent_back_is_kept(value: str) -> None:
    assert known_version(value) == value


@pytest.mark.parametrize(
    "value",
    [
        "",
        'W/"abc"',
        "abc",
        '"abc',
        '"a"b"',
        '"a\nb"',
        '"a\r\nX: y"',
        '"\x1b[31m"',
        '"ä"',
        '"a b"',
        f'"{"x" * 255}"',
        "Wed, ٢١ Oct 2015 07:28:00 GMT",
        "Wed, 21 Oct 2015 07:28:00 +0000",
        "today",
        f"{DATE}\n",
        "\0",
    ],
)
def test_version_that_cannot_be_sent_back_is_none(value: str) -> None:
    assert known_version(value) == ""
    assert file_version({"ETag": value, "Last-Modified": DATE}) == DATE


@given(st.text(max_size=60), st.sampled_from(["", "bytes ", "bytes=", '"', "Wed, 21 Oct "]))
def test_no_text_is_too_strange_for_any_header(text: str, start: str) -> None:
    value = start + text
    headers = dict.fromkeys(("Retry-After", "Content-Length", "Content-Range", "ETag", "Last-Modified"), value)
    assert 0 <= retry_after(headers) <= MAX_RETRY_AFTER_SECONDS
    assert 0 <= content_length(headers) < 10**18
    assert all(number is None or 0 <= number < 10**18 for number in content_range(headers))
    assert byte_range(value) is None or byte_range(value)[0] >= 0
    assert re.fullmatch(r"[ -~]{0,256}", file_version(headers))
    assert printable(value).isprintable()
    assert len(printable(value, 20)) <= 20


@given(st.integers(0, 10**18 - 1), st.integers(0, 10**18 - 1))
def test_numbers_that_servers_write_are_read(start: int, total: int) -> None:
    assert content_range({"Content-Range": f"bytes {start}-{total}/{total}"}) == (start, total)
    assert content_length({"Content-Length": str(total)}) == total
    assert byte_range(f"bytes={start}-{total}") == (start, total)


def answer(*headers: str, status: str = "200 OK", body: bytes = BODY, length: str | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status}", "Connection: close", f"Content-Length: {length or len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage.sources.http.client, "FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(storage.sources.http.client, "MAX_WAIT_SECONDS", 0.02)


def fetch(port: int, target: Path, retries: int = 1) -> None:
    mirror = HttpMirror(f"http://127.0.0.1:{port}", timeout_seconds=5, retries=retries)
    try:
        mirror.fetch("a", SHA256, target, DownloadProgress(1))
    finally:
        mirror.close()


@pytest.mark.parametrize(
    "headers",
    [
        *(f"Retry-After: {value}" for value in (*NO_NUMBERS[:-1], "9" * 18, "Mon, 01 Jan 0001 00:00:00 -0000")),
        "Content-Type: text/plain; charset=\x80\xff",
        "Content-Type: text/plain; charset=no-such-charset",
        "Content-Encoding: gzip",
        'ETag: "ä"\r\nLast-Modified: ٣',
        f'ETag: "{"x" * 5000}"',
        "Last-Modified: \x80",
        "Accept-Ranges: ²",
        "Set-Cookie: a=b; Max-Age=²; Expires=never",
    ],
)
def test_hostile_header_does_not_disturb_a_download(
    raw_server: Callable[..., Any], tmp_path: Path, headers: str
) -> None:
    busy, cut = answer(headers, status="503 Busy", body=b""), answer(headers, body=BODY[:4], length="10")
    rest = answer(headers, "Content-Range: bytes 4-9/10", status="206 Partial", body=BODY[4:])
    server = raw_server(busy, cut, rest)
    fetch(server.port, tmp_path / "a", retries=3)
    assert (tmp_path / "a").read_bytes() == BODY
    assert b"Range: bytes=4-\r\n" in server.requests[2]
    assert b"If-Range" not in server.requests[2]


@pytest.mark.parametrize(
    "value", ["²", "-5", "+5", "5_0", "1, 2", "10, 10, 11", "9" * 21, "nan", "0x0a", "11", "9" * 20]
)
def test_hostile_content_length_is_one_clear_fault(
    raw_server: Callable[..., Any], tmp_path: Path, value: str
) -> None:
    server = raw_server(answer(length=value))
    with pytest.raises(Fault, match="must be reachable, but 2 attempts failed"):
        fetch(server.port, tmp_path / "a")


def test_body_longer_than_said_is_cut_there(raw_server: Callable[..., Any], tmp_path: Path) -> None:
    fetch(raw_server(answer(body=BODY + b"more", length="10")).port, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == BODY


def test_rest_longer_than_the_file_is_fetched_anew(
    raw_server: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.partial").write_bytes(BODY[:4])
    longer = answer("Content-Range: bytes 4-9/10", status="206 Partial", body=BODY[4:] + b"more")
    server = raw_server(longer, answer())
    fetch(server.port, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == BODY
    assert b"Range" not in server.requests[1]
    assert len(server.requests) == 2
    assert "sent more than the 10 bytes" in caplog.text  # and not only a wrong checksum at the end


@pytest.mark.parametrize(
    "value", ["bytes ٤-9/10", "bytes 4-9/²", f"bytes 4-9/{'9' * 5000}", f"bytes {'9' * 5000}-9/10"]
)
def test_hostile_content_range_starts_over(raw_server: Callable[..., Any], tmp_path: Path, value: str) -> None:
    (tmp_path / "a.partial").write_bytes(BODY[:4])
    server = raw_server(answer(f"Content-Range: {value}", status="206 Partial", body=BODY[4:]), answer())
    fetch(server.port, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == BODY


@pytest.mark.parametrize("noted", [b"\xff\xfe", b'"a"\r\nX-Evil: 1', b'"' + b"x" * 5000 + b'"', b"abc", b""])
def test_damaged_note_of_a_version_is_ignored(
    raw_server: Callable[..., Any], tmp_path: Path, noted: bytes
) -> None:
    (tmp_path / "a.partial").write_bytes(BODY[:4])
    (tmp_path / "a.partial.version").write_bytes(noted)
    server = raw_server(answer("Content-Range: bytes 4-9/10", status="206 Partial", body=BODY[4:]))
    fetch(server.port, tmp_path / "a", retries=0)
    assert b"Range: bytes=4-\r\n" in server.requests[0]
    assert b"If-Range" not in server.requests[0]
    assert b"X-Evil" not in server.requests[0]


@pytest.mark.parametrize(
    "location",
    [
        "http://h:²/",
        "http://h:99999999/",
        "http://h:-5/",
        f"http://h:{'9' * 5000}/",
        "http://[zz]/",
        "http://①.0.0.1/",
        "http://xn--/",
        "http://xn--a-ecp.ru/",
        "//xn--a-ecp.ru/",
        "http://a\x1b[31m/",
        "http://h/" + "x" * 9000,
        "http://h:0/",
        "data:text/plain,a",
    ],
)
def test_hostile_location_is_one_clear_error(
    raw_server: Callable[..., Any], tmp_path: Path, location: str
) -> None:
    server = raw_server(answer(f"Location: {location}", status="302 Found", body=b""))
    with pytest.raises(InputError, match="must redirect to") as caught:
        fetch(server.port, tmp_path / "a")
    assert len(server.requests) == 1
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


def test_no_text_is_too_strange_for_a_location(raw_server: Callable[..., Any]) -> None:
    def resolve(host: str, port: int) -> list[str]:
        if host != "mirror.test":
            raise OSError("no such host")
        return ["127.0.0.1"]

    server = raw_server(b"")
    mirror = HttpMirror(f"http://mirror.test:{server.port}", timeout_seconds=5, retries=0, resolve=resolve)

    @given(st.text(max_size=30), st.sampled_from(["", "/", "//", "http://", "http://a:", "http://[", "https:"]))
    @settings(deadline=None)
    def check(text: str, start: str) -> None:
        location = f"Location: {start}{text.translate({10: None, 13: None, 0: None})}"
        server.answers = (answer(location, status="302 Found", body=b""),)
        with pytest.raises((InputError, Fault)) as caught:
            mirror.read("a", 10)
        assert str(caught.value).isprintable()

    check()
    mirror.close()


@pytest.mark.parametrize(
    "location", ["http://a..b/", f"http://{'a' * 64}/", "http://h%00.test/", "http://%s/" % ("a." * 200), "//["]
)
def test_location_that_no_host_can_have_is_one_clear_fault(
    raw_server: Callable[..., Any], tmp_path: Path, location: str
) -> None:
    server = raw_server(answer(f"Location: {location}", status="302 Found", body=b""))
    with pytest.raises(Fault, match="must be reachable, but 1 attempts failed"):
        fetch(server.port, tmp_path / "a", retries=0)


@pytest.mark.parametrize(
    "status", ["404 \x1b]0;title\x07", "503 \x1b[2J" + "x" * 5000, "503 ", "418", "503 \x80\xff"]
)
def test_reason_of_a_status_reaches_the_terminal_without_controls(
    raw_server: Callable[..., Any], tmp_path: Path, status: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = raw_server(answer(status=status, body=b""))
    with pytest.raises((InputError, Fault), match=status[:3]) as caught:
        fetch(server.port, tmp_path / "a")
    for text in (str(caught.value), *(record.getMessage() for record in caplog.records)):
        assert text.isprintable()
        assert len(text) < 1000


@pytest.mark.parametrize(
    "url", ["http://[zz]/", "http://h:²/", "http://①.0.0.1/", "http://a\x1b/", "http://xn--/"]
)
def test_address_of_a_mirror_that_is_none_is_one_clear_error(url: str) -> None:
    with pytest.raises(InputError, match="must be a folder or an http") as caught:
        HttpMirror(url)
    assert str(caught.value).isprintable()
