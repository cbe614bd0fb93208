import socket
from collections.abc import Callable
from typing import Any

import httpcore
import pytest

import storage.sources.http.addresses
import storage.sources.http.client
from storage.errors import Fault, InputError
from storage.sources.http.addresses import is_global, is_private, system_addresses
from storage.sources.http.client import HttpMirror
from storage.sources.progress import DownloadProgress

PUBLIC, CDN, INNER = "93.184.215.14", "151.101.1.69", "10.0.0.7"

SPELLINGS = [
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "2130706433",
    "0x7f000001",
    "0X7F.1",
    "0x7f.0.0.1",
    "017700000001",
    "0177.1",
    "0177.0.0.1",
    "127.0.0.1.",
    "127%2e0%2e0%2e1",
    "127。0。0。1",
    "①②⑦.0.0.1",
    "１２７.0.0.1",
    "127.1.2.3",
    "user:password@127.0.0.1",
    "mirror.test@127.0.0.1",
    "mirror.test:80@127.1",
    "localhost",
    "localhost.",
    "LocalHost",
    "LOCALHOST.",
    "local%68ost",
    "a.localhost",
    "inner.test",
    "INNER.test.",
    "mixed.test",
    "mapped.test",
    "0",
    "0.0.0.0",
    "10.1",
    "167772161",
    "172.16.0.1",
    "192.168.1",
    "169.254.169.254",
    "0xa9fea9fe",
    "192.0.0.192",
    "100.64.0.1",
    "198.18.0.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "[::1]",
    "[::]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b:1::7f00:1]",
    "[2002:7f00:1::]",
    "[2001:0:7f00:1::1]",
    "[fe80::1]",
    "[fe80::1%25lo]",
    "[fec0::1]",
    "[fc00::1]",
    "[fd00:ec2::254]",
    "[ff02::1]",
    "[ff0e::1]",
    "[2001:db8::1]",
    "[3fff::1]",
]
"""Ways to write an address that is not on the internet, or a name that has one."""


class SmallInternet(httpcore.NetworkBackend):
    """Every address leads to this machine's loopback; what was connected to and looked up is noted.

    So a spelling that slips through reaches the test's server, even that of an address this machine cannot reach.
    """

    def __init__(self) -> None:
        self.names: dict[str, list[list[str]]] = {
            "mirror.test": [[PUBLIC]],
            "cdn.test": [[CDN]],
            "localhost": [["127.0.0.1"]],
            "a.localhost": [["127.0.0.1"]],
            "inner.test": [[INNER]],
            "mixed.test": [[PUBLIC, INNER]],
            "mapped.test": [["::ffff:10.0.0.7"]],
        }
        self.lookups: list[str] = []
        self.connections: list[str] = []

    def resolve(self, host: str, port: int) -> list[str]:
        """Give the next answer for a name, the last one for ever; anything else is an address or nothing."""
        self.lookups.append(host)
        name = host.lower().rstrip(".")
        if answers := self.names.get(name):
            return answers.pop(0) if len(answers) > 1 else answers[0]
        return [str(entry[4][0]) for entry in socket.getaddrinfo(name, port, flags=socket.AI_NUMERICHOST)]

    def connect_tcp(self, host: str, port: int, *arguments: Any, **options: Any) -> httpcore.NetworkStream:
        """Connect to the loopback address instead."""
        self.connections.append(host)
        return httpcore.SyncBackend().connect_tcp("127.0.0.1", port, *arguments, **options)

    def mirror(self, url: str, retries: int = 0) -> HttpMirror:
        return HttpMirror(url, timeout_seconds=5, retries=retries, resolve=self.resolve, sockets=self)


@pytest.fixture
def internet(monkeypatch: pytest.MonkeyPatch) -> SmallInternet:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(storage.sources.http.client, "FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(storage.sources.http.addresses, "_public_hosts", set())
    return SmallInternet()


def redirect(location: str) -> bytes:
    return (
        b"HTTP/1.1 302 Found\r\nConnection: close\r\nContent-Length: 0\r\nLocation: "
        + location.encode()
        + b"\r\n\r\n"
    )


OK = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 6\r\n\r\nsecret"


@pytest.mark.parametrize("host", SPELLINGS)
def test_public_mirror_redirects_to_a_private_address_in_any_spelling_is_not_followed(
    internet: SmallInternet, raw_server: Callable[..., Any], host: str
) -> None:
    inner = raw_server(OK)
    server = raw_server(redirect(f"http://{host}:{inner.port}/a"))
    mirror = internet.mirror(f"http://mirror.test:{server.port}")
    with pytest.raises((InputError, Fault), match=r"must (redirect to|lead to public|be reachable)"):
        mirror.read("a", 100)
    assert inner.requests == []
    assert internet.connections == [PUBLIC]
    mirror.close()


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"],
)
def test_addresses_of_the_internet_are_global(address: str) -> None:
    assert is_global(address)


@pytest.mark.parametrize("address", ["", "mirror.test", "127.1", "1.2.3", "8.8.8.8.", "134744072"])
def test_what_is_not_an_address_is_not_global(address: str) -> None:
    assert not is_global(address)


@pytest.mark.parametrize("host", ["example.org", "93.184.215.14", "1572395790", "localhost.example.org", ""])
def test_hosts_of_the_internet_are_not_private(host: str) -> None:
    assert not is_private(host)


@pytest.mark.parametrize("host", ["a..b", "a" * 64, "a\0b", "ä.test", "x" * 300, "1.2.3.4.5 "])
def test_what_is_no_name_has_no_address(host: str) -> None:
    with pytest.raises(OSError, match=r"not the name of a host|Errno -\d+"):
        system_addresses(host, 80)


def test_name_that_turns_private_is_refused_at_the_next_connection(
    internet: SmallInternet, raw_server: Callable[..., Any]
) -> None:
    server = raw_server(OK)
    internet.names["mirror.test"] = [[PUBLIC], ["127.0.0.1"]]
    mirror = internet.mirror(f"http://mirror.test:{server.port}")
    assert mirror.read("a", 100) == b"secret"
    with pytest.raises(InputError, match=r"must lead to public addresses only, found 127.0.0.1 as the address of"):
        mirror.read("b", 100)
    assert len(server.requests) == 1
    mirror.close()


def test_name_that_turns_private_is_refused_at_a_retry(
    internet: SmallInternet, raw_server: Callable[..., Any]
) -> None:
    server = raw_server(b"HTTP/1.1 503 Busy\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", OK)
    internet.names["mirror.test"] = [[PUBLIC], [INNER]]
    mirror = internet.mirror(f"http://mirror.test:{server.port}", retries=3)
    with pytest.raises(InputError, match=f"found {INNER}"):
        mirror.read("a", 100)
    assert internet.connections == [PUBLIC]
    mirror.close()


def test_name_that_turns_private_is_refused_by_a_mirror_opened_again(
    internet: SmallInternet, raw_server: Callable[..., Any]
) -> None:
    server = raw_server(OK)
    internet.names["mirror.test"] = [[PUBLIC], [INNER]]
    listing, files = (internet.mirror(f"http://mirror.test:{server.port}") for _ in range(2))
    assert listing.read("a", 100) == b"secret"
    with pytest.raises(InputError, match=f"found {INNER}"):
        files.read("a", 100)
    assert internet.connections == [PUBLIC]
    listing.close()
    files.close()


@pytest.mark.parametrize("addresses", [[PUBLIC, INNER], [INNER, PUBLIC], ["2606:4700::1", "fe80::1"]])
def test_one_private_address_among_public_ones_is_enough_to_refuse(
    internet: SmallInternet, raw_server: Callable[..., Any], addresses: list[str]
) -> None:
    server = raw_server(OK)
    internet.names["mirror.test"] = [addresses]
    mirror = internet.mirror(f"http://mirror.test:{server.port}")
    with pytest.raises(InputError, match="must lead to public addresses only"):
        mirror.read("a", 100)
    assert internet.connections == []
    mirror.close()


@pytest.mark.parametrize("host", ["inner.test", "10.0.0.7", "localhost", "[::1]"])
@pytest.mark.parametrize("target", ["inner.test", "10.0.0.9", "127.1", "cdn.test"])
def test_private_mirror_may_redirect_into_its_network_and_out_of_it(
    internet: SmallInternet, raw_server: Callable[..., Any], host: str, target: str
) -> None:
    file = raw_server(OK)
    server = raw_server(redirect(f"http://{target}:{file.port}/a"))
    mirror = internet.mirror(f"http://{host}:{server.port}")
    assert mirror.read("a", 100) == b"secret"
    mirror.close()


@pytest.mark.parametrize("target", ["inner.test", "10.0.0.9", "127.1", "localhost"])
def test_private_mirror_does_not_lead_inside_by_way_of_the_internet(
    internet: SmallInternet, raw_server: Callable[..., Any], target: str
) -> None:
    file = raw_server(OK)
    outside = raw_server(redirect(f"http://{target}:{file.port}/a"))
    server = raw_server(OK, redirect(f"http://cdn.test:{outside.port}/a"))
    mirror = internet.mirror(f"http://inner.test:{server.port}")
    assert mirror.read("a", 100) == b"secret"
    with pytest.raises(InputError, match=r"must redirect to|must not lead out of its private network and back"):
        mirror.read("b", 100)
    assert file.requests == []
    mirror.close()


def test_redirect_with_range_is_continued_and_retried_over_checked_addresses(
    internet: SmallInternet, raw_server: Callable[..., Any], tmp_path: Any
) -> None:
    head = b'%b\r\nConnection: close\r\nETag: "1"\r\nContent-Length: %d\r\n'
    whole = head % (b"HTTP/1.1 200 OK", 6) + b"\r\nsec"
    rest = head % (b"HTTP/1.1 206 Partial", 3) + b"Content-Range: bytes 3-5/6\r\n\r\nret"
    cdn = raw_server(whole, rest)
    server = raw_server(redirect(f"http://cdn.test:{cdn.port}/signed?a=b"))
    mirror = internet.mirror(f"http://mirror.test:{server.port}", retries=2)
    sha256 = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"
    mirror.fetch("a", sha256, tmp_path / "a", DownloadProgress(1))
    assert (tmp_path / "a").read_bytes() == b"secret"
    assert b"Range: bytes=3-\r\n" in cdn.requests[1]
    assert b'If-Range: "1"\r\n' in cdn.requests[1]
    assert f"Host: cdn.test:{cdn.port}\r\n".encode() in cdn.requests[0]
    assert internet.connections == [PUBLIC, CDN, PUBLIC, CDN]
    mirror.close()
