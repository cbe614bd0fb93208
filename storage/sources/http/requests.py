"""Send GETs to a mirror, follow their redirects to where they may lead, and say what a refusal means."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

import httpcore
import httpx

from storage.errors import InputError
from storage.sources.http.addresses import AddressGuard, Resolve, is_private, system_addresses
from storage.sources.http.errors import MissingFile, TryAgain
from storage.sources.http.headers import printable, retry_after
from storage.sources.http.safety import check_redirect, shown
from storage.sources.http.transport import OUTSIDE, open_client

MAX_REDIRECTS = 5


class Requests:
    """GETs below one URL, over connections whose addresses are checked. Serves many threads."""

    def __init__(
        self,
        url: str,
        *,
        timeout_seconds: float,
        resolve: Resolve = system_addresses,
        sockets: httpcore.NetworkBackend | None = None,
    ) -> None:
        self._base = url.rstrip("/")
        try:
            self.url = shown(url)
            parsed = httpx.URL(self._base)
            parsed.host  # noqa: B018 - decodes the name, which httpx would do in the middle of a request
            host = parsed.raw_host.decode("ascii")
        except (httpx.InvalidURL, ValueError) as error:
            raise InputError(
                f"the mirror must be a folder or an http(s) URL, found one that cannot be read "
                f"({printable(str(error))}); correct it"
            ) from error
        # httpx logs every URL with its query, and redirects of object stores carry signatures there.
        logging.getLogger("httpx").setLevel(logging.WARNING)
        self._guard = AddressGuard(host, self.url, resolve)
        self._client = open_client(
            self._guard,
            timeout_seconds=timeout_seconds,
            use_proxies=not is_private(host),  # a proxy of the outside world does not reach this machine
            sockets=sockets,
        )

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    @contextmanager
    def get(self, name: str, headers: dict[str, str]) -> Iterator[httpx.Response]:
        """Send a GET and follow its redirects, none of which may lead to a less safe place."""
        request = self._client.build_request("GET", f"{self._base}/{quote(name)}", headers=headers)
        for _ in range(MAX_REDIRECTS + 1):
            try:
                response = self._client.send(request, stream=True)
            except httpx.InvalidURL as error:
                raise InputError(
                    f"{self.shown(name)} must redirect to https or http, found no such address "
                    f"({printable(str(error))}); check the address of the mirror"
                ) from error
            try:
                if response.next_request is None:
                    yield response
                    return
            finally:
                response.close()
            request = self._next(request, response.next_request)
        raise InputError(f"{self.shown(name)} must lead to a file, found more than {MAX_REDIRECTS} redirects")

    def _next(self, request: httpx.Request, following: httpx.Request) -> httpx.Request:
        """Return the redirected request, marked as one from outside unless the user's own network sent it."""
        inside = self._guard.is_inside(request.url.raw_host.decode("ascii"))
        check_redirect(str(request.url), str(following.url), inside=inside)
        if not inside:
            following.extensions[OUTSIDE] = True
        return following

    def refusal(self, name: str, response: httpx.Response) -> Exception:
        """Return what an answer without the file means: TryAgain, MissingFile or another InputError."""
        status = printable(f"{response.status_code} {response.reason_phrase}".strip())
        if response.status_code in (408, 425, 429) or response.status_code >= 500:
            return TryAgain(f"the server answered {status}", retry_after(response.headers))
        message = f"{self.shown(name)} must be readable, the server answered {status}; "
        if response.status_code == 404:
            return MissingFile(message + "check the address of the mirror and its SHA256SUMS.txt")
        if response.status_code in (401, 403):
            return InputError(message + "put user name and password of this host into ~/.netrc")
        return InputError(message + "check the address of the mirror")

    def shown(self, name: str) -> str:
        """Return the URL of a file as it may appear in messages."""
        return f"{self.url}/{name}"
