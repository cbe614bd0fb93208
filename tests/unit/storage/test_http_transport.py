import datetime
import ipaddress
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

import storage.sources.http.addresses
from storage.errors import Fault, InputError
from storage.sources.http.client import HttpMirror
from storage.sources.http.transport import environment_proxies

OK = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\ntext"
PROXY_SETTINGS = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXY_SETTINGS:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(storage.sources.http.addresses, "_public_hosts", set())


def read(url: str, resolve: Callable[[str, int], list[str]]) -> bytes:
    mirror = HttpMirror(url, timeout_seconds=5, retries=0, resolve=resolve)
    try:
        return mirror.read("a", 100)
    finally:
        mirror.close()


def nobody(host: str, port: int) -> list[str]:
    raise AssertionError(f"{host} was looked up here, not by the proxy")


def loopback(host: str, port: int) -> list[str]:
    return ["127.0.0.1"]


def test_connection_goes_to_the_checked_address_without_a_second_look_up(
    raw_server: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second answer of this name server is an address where nobody listens."""
    server = raw_server(OK)
    asked: list[str] = []
    system = socket.getaddrinfo

    def getaddrinfo(host: Any, *arguments: Any, **options: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if not options.get("flags"):  # else it is only read as a number
            asked.append(name)
            if name == "mirror.test":
                name = "127.0.0.1" if asked == ["mirror.test"] else "127.0.0.9"
        return system(name, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert read(f"http://mirror.test:{server.port}", storage.sources.http.addresses.system_addresses) == b"text"
    assert asked == ["mirror.test", "127.0.0.1"]
    assert f"Host: mirror.test:{server.port}\r\n".encode() in server.requests[0]


def test_next_address_is_tried_when_one_does_not_answer(raw_server: Callable[..., Any]) -> None:
    server = raw_server(OK)
    assert read(f"http://mirror.test:{server.port}", lambda host, port: ["127.0.0.9", "127.0.0.1"]) == b"text"


@pytest.mark.parametrize("error", [socket.gaierror(-2, "Name or service not known"), None])
def test_name_without_an_address_is_one_clear_fault(error: OSError | None) -> None:
    def resolve(host: str, port: int) -> list[str]:
        if error:
            raise error
        return []

    with pytest.raises(Fault, match=r"must be reachable, but 1 attempts failed .*(not known|no address)"):
        read("http://mirror.test", resolve)


def certificate(folder: Path, name: str) -> ssl.SSLContext:
    """Make a certificate for a name that signs itself, in folder/certificate.pem."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "certificate.pem").write_bytes(pem)
    (folder / "both.pem").write_bytes(secret + pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "both.pem")
    return context


@pytest.mark.parametrize("host", ["mirror.test", "other.test"])
def test_certificate_and_server_name_are_those_of_the_name(
    raw_server: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    asked: list[str | None] = []
    context = certificate(tmp_path, "mirror.test")
    context.sni_callback = lambda connection, name, context: asked.append(name)
    server = raw_server(OK, context=context)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
    if host == "mirror.test":
        assert read(f"https://{host}:{server.port}", loopback) == b"text"
    else:
        with pytest.raises(Fault, match="Hostname mismatch"):
            read(f"https://{host}:{server.port}", loopback)
    assert asked == [host]


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_proxy_gets_the_name(
    raw_server: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    proxy = raw_server(OK)
    monkeypatch.setenv(variable, f"127.0.0.1:{proxy.port}")
    assert read("http://mirror.test", nobody) == b"text"
    assert proxy.requests[0].startswith(b"GET http://mirror.test/a HTTP/1.1\r\n")


def test_proxy_gets_the_name_for_an_encrypted_connection(
    raw_server: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = raw_server(b"HTTP/1.1 403 Not \x1b[31m allowed\r\nContent-Length: 0\r\n\r\n")
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
    with pytest.raises(Fault, match=r"403 Not \?\[31m allowed"):
        read("https://mirror.test", nobody)
    assert proxy.requests[0].startswith(b"CONNECT mirror.test:443 HTTP/1.1\r\n")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "2130706433", "localhost.", "[::1]"])
def test_proxy_is_not_sent_to_a_private_address_by_a_redirect(
    raw_server: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    location = f"Location: http://{host}/\r\n".encode()
    proxy = raw_server(
        b"HTTP/1.1 302 Found\r\nConnection: close\r\nContent-Length: 0\r\n" + location + b"\r\n", OK
    )
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
    with pytest.raises(InputError, match="must redirect to a public address"):
        read("http://mirror.test", nobody)
    assert len(proxy.requests) == 1


def test_redirect_behind_a_proxy_does_not_lead_to_a_private_host_without_one(
    raw_server: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = raw_server(OK)
    location = f"Location: http://inner.test:{inner.port}/\r\n".encode()
    proxy = raw_server(b"HTTP/1.1 302 Found\r\nConnection: close\r\nContent-Length: 0\r\n" + location + b"\r\n")
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
    monkeypatch.setenv("NO_PROXY", "inner.test")
    with pytest.raises(InputError, match="must lead to public addresses only"):
        read("http://mirror.test", loopback)
    assert inner.requests == []


@pytest.mark.parametrize("exempt", ["mirror.test", "other.test, .test", "*.test", "*"])
def test_no_proxy_connects_directly(
    raw_server: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, exempt: str
) -> None:
    server, proxy = raw_server(OK), raw_server(b"")
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
    monkeypatch.setenv("NO_PROXY", exempt)
    assert read(f"http://mirror.test:{server.port}", loopback) == b"text"
    assert proxy.requests == []


def test_mirror_on_this_machine_needs_no_proxy(
    raw_server: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, proxy = raw_server(OK), raw_server(b"")
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
    assert read(f"http://127.1:{server.port}", storage.sources.http.addresses.system_addresses) == b"text"
    assert proxy.requests == []


@pytest.mark.parametrize(
    ("exempt", "patterns"),
    [
        ("", []),
        (" , example.org ", ["all://*example.org"]),
        (".example.org,*.example.com", ["all://*.example.org", "all://*.example.com"]),
        ("10.0.0.0/8,::1,[::1],localhost", ["all://10.0.0.0", "all://[::1]", "all://localhost"]),
        ("http://example.org,example.org:81", ["http://example.org", "all://*example.org:81"]),
    ],
)
def test_no_proxy_becomes_patterns(monkeypatch: pytest.MonkeyPatch, exempt: str, patterns: list[str]) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "proxy.test:3128")
    monkeypatch.setenv("NO_PROXY", exempt)
    assert environment_proxies() == {"https://": "http://proxy.test:3128", **dict.fromkeys(patterns, "")}


@pytest.mark.parametrize(
    "proxy", ["ftp://proxy.test", "http://[zz]", "http://proxy.test:²", "socks5://proxy.test:1"]
)
def test_unusable_proxy_is_one_clear_error(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy)
    with pytest.raises(InputError, match=r"HTTP_PROXY.* must name proxies"):
        read("http://mirror.test", nobody)


def test_address_with_a_scope_keeps_it() -> None:
    found = storage.sources.http.addresses.system_addresses("fe80::1%lo", 80)
    assert ipaddress.ip_address(found[0]).is_link_local
    assert "%" in found[0]
