"""What the HTTP downloader hides, where a redirect may not lead, and how the user's password is found."""

import netrc
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from storage.errors import InputError
from storage.sources.http.addresses import is_private
from storage.sources.http.headers import printable

LOCATION_CHARACTERS = 8192
"""Signed links of object stores have up to about 2,000."""
MAX_PORT = 65_535


def shown(url: str) -> str:
    """Return a URL as it may appear in messages: without user name, password and query, without controls."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return printable(f"{parts.scheme}://{host}{parts.path}".rstrip("/"), limit=500)


def check_location(response: httpx.Response) -> None:
    """Raise InputError if an answer redirects to something that is not a URL, before httpx tries to follow it."""
    if not response.has_redirect_location:
        return
    location = response.headers["Location"]
    try:
        if len(location) > LOCATION_CHARACTERS:
            raise httpx.InvalidURL(f"it has {len(location)} characters")
        if not location.isprintable():
            raise httpx.InvalidURL("it has control characters")
        target = response.request.url.join(location)
        target.host  # noqa: B018 - decodes the name: httpx itself does so only after it followed
        port = target.port
        if port is not None and not 0 < port <= MAX_PORT:
            raise httpx.InvalidURL("it has no valid port")
    except (httpx.InvalidURL, ValueError) as error:
        raise InputError(
            f"{shown(str(response.request.url))} must redirect to a URL, found none ({printable(str(error))}); "
            f"check the address of the mirror"
        ) from error


def check_redirect(source: str, target: str, *, inside: bool = False) -> None:
    """Raise InputError if a redirect gives up encryption or leads from the network into this machine's own.

    `inside` tells that the source lies in the user's own network itself. This reads only what is written: the
    address that a name has is the business of `AddressGuard`, or of the user's proxy.
    """
    before, after = urlsplit(source), urlsplit(target)
    allowed = ("https",) if before.scheme == "https" else ("https", "http")
    if after.scheme not in allowed:
        raise InputError(
            f"{shown(source)} must redirect to {' or '.join(allowed)}, found {shown(target)}; "
            f"check the address of the mirror"
        )
    if is_private(after.hostname or "") and not inside and not is_private(before.hostname or ""):
        raise InputError(
            f"{shown(source)} must redirect to a public address, found {shown(target)}; "
            f"check the address of the mirror"
        )


def netrc_auth() -> httpx.Auth | None:
    """Return the credentials of ~/.netrc for httpx, None without that file. Raises: InputError."""
    path = Path.home() / ".netrc"
    if not path.exists():
        return None
    try:
        return httpx.NetRCAuth(str(path))
    except (OSError, netrc.NetrcParseError) as error:
        raise InputError(f"{path} must be a readable netrc file, found: {error}; correct or remove it") from error
