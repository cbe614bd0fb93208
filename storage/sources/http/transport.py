"""An httpx client that connects to checked addresses only, except through a proxy that the user set.

httpx itself offers no place between the look-up of a name and the connection, but the library below it does:
httpcore's network backend opens the sockets. Host header, TLS server name and the check of the certificate
keep the name, because they are made above it.

Import this module when a mirror is opened: httpx takes 0.14 s.
"""

import ipaddress
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import cast

import httpcore
import httpx

from storage.errors import InputError
from storage.sources.http.addresses import AddressGuard
from storage.sources.http.headers import printable
from storage.sources.http.safety import check_location, netrc_auth

OUTSIDE = "outside"
"""Extension of a request whose URL came from the internet; redirects inherit it."""

_NAMESAKES = (
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    httpcore.UnsupportedProtocol,
)
"""Errors of httpcore that httpx has under the same names."""


class CheckedBackend(httpcore.NetworkBackend):
    """Opens connections to the addresses that the guard found and checked, with no second look-up."""

    def __init__(self, guard: AddressGuard, sockets: httpcore.NetworkBackend, *, outside: bool) -> None:
        self._guard = guard
        self._sockets = sockets
        self._outside = outside

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first address of a host that answers. Raises: InputError, httpcore's errors."""
        try:
            addresses = self._guard.addresses(host, port, outside=self._outside)
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        failure: Exception = httpcore.ConnectError(f"{printable(host)} has no address")
        for address in addresses:
            try:
                return self._sockets.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure


class CheckedTransport(httpx.BaseTransport):
    """Sends requests over checked connections; those from outside never share one with the others."""

    def __init__(self, guard: AddressGuard, sockets: httpcore.NetworkBackend, *, trust_env: bool) -> None:
        context = httpx.create_ssl_context(trust_env=trust_env)
        self._inside, self._outside = (
            httpcore.ConnectionPool(
                ssl_context=context,
                max_connections=None,
                keepalive_expiry=5.0,
                network_backend=CheckedBackend(guard, sockets, outside=outside),
            )
            for outside in (False, True)
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request; the body of the answer is still to be read."""
        url = request.url
        pool = self._outside if request.extensions.get(OUTSIDE) else self._inside
        with _errors_of_httpx():
            answer = pool.handle_request(
                httpcore.Request(
                    method=request.method,
                    url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                    headers=request.headers.raw,
                    content=request.stream,
                    extensions=request.extensions,
                )
            )
        return httpx.Response(
            answer.status, headers=answer.headers, stream=_Body(answer), extensions=answer.extensions
        )

    def close(self) -> None:
        """Close all connections."""
        self._inside.close()
        self._outside.close()


class _Body(httpx.SyncByteStream):
    """The body of an answer, as httpx wants it."""

    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        with _errors_of_httpx():
            yield from cast(Iterable[bytes], self._answer.stream)

    def close(self) -> None:
        self._answer.close()


@contextmanager
def _errors_of_httpx() -> Iterator[None]:
    try:
        yield
    except _NAMESAKES as error:
        raise getattr(httpx, type(error).__name__)(str(error)) from error


def open_client(
    guard: AddressGuard,
    *,
    timeout_seconds: float,
    use_proxies: bool,
    sockets: httpcore.NetworkBackend | None = None,
) -> httpx.Client:
    """Return a client that goes through the proxies of the environment, and directly where there is none.

    A proxy gets the name of a host and resolves it itself: whoever sets a proxy trusts it with that.
    Raises: InputError for an unusable proxy or ~/.netrc.
    """
    transport = CheckedTransport(guard, sockets or httpcore.SyncBackend(), trust_env=use_proxies)
    try:
        # Given a transport, httpx does not look for proxies any more: they are read here.
        mounts = {
            pattern: httpx.HTTPTransport(proxy=proxy, limits=httpx.Limits(max_connections=None)) if proxy else None
            for pattern, proxy in (environment_proxies() if use_proxies else {}).items()
        }
        return httpx.Client(
            auth=netrc_auth(),
            timeout=timeout_seconds,
            headers={"User-Agent": "pile-pipeline", "Accept-Encoding": "identity"},
            transport=transport,
            mounts=mounts,
            trust_env=False,
            event_hooks={"response": [check_location]},
        )
    except (httpx.InvalidURL, ImportError) as error:
        raise _unusable_proxy(error) from error
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise _unusable_proxy(error) from error


def _unusable_proxy(error: Exception) -> InputError:
    return InputError(
        f"HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY must name proxies and hosts, found: "
        f"{printable(str(error))}; correct or unset them"
    )


def environment_proxies() -> dict[str, str]:
    """Return URL pattern -> proxy as the environment sets it, '' for the hosts of NO_PROXY.

    `example.org` in NO_PROXY means the host and those below it, `.example.org` only those below it.
    Source: get_environment_proxies of httpx 0.28 (BSD-3-Clause), which is private there.
    """
    settings = urllib.request.getproxies()
    proxies = {}
    for scheme in ("http", "https", "all"):
        if proxy := settings.get(scheme):
            proxies[f"{scheme}://"] = proxy if "://" in proxy else f"http://{proxy}"
    exempt = [host for entry in settings.get("no", "").split(",") if (host := entry.strip())]
    if "*" in exempt:
        return {}
    return proxies | {host if "://" in host else f"all://{_host_pattern(host)}": "" for host in exempt}


def _host_pattern(host: str) -> str:
    try:
        address = ipaddress.ip_address(host.partition("/")[0].strip("[]"))
    except ValueError:
        return host if host.lower() == "localhost" else f"*{host.lstrip('*')}"
    return f"[{address}]" if address.version == 6 else str(address)
