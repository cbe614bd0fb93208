"""What the HTTP downloader hides, where it does not go, and how it is told a password."""

import ipaddress
import netrc
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from storage.errors import InputError

if TYPE_CHECKING:
    import httpx


def shown(url: str) -> str:
    """Return a URL as it may appear in messages: without user name, password and query."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}".rstrip("/")


def check_redirect(source: str, target: str) -> None:
    """Raise InputError if a redirect gives up encryption or leads from the network into this machine's own."""
    before, after = urlsplit(source), urlsplit(target)
    allowed = ("https",) if before.scheme == "https" else ("https", "http")
    if after.scheme not in allowed:
        raise InputError(
            f"{shown(source)} must redirect to {' or '.join(allowed)}, found {shown(target)}; "
            f"check the address of the mirror"
        )
    if is_private(after.hostname or "") and not is_private(before.hostname or ""):
        raise InputError(f"{shown(source)} must redirect to a public address, found {shown(target)}")


def is_private(host: str) -> bool:
    """Tell whether a host is this machine or an address that has no meaning on the internet."""
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return host == "localhost"


def netrc_auth() -> "httpx.Auth | None":
    """Return the credentials of ~/.netrc for httpx, None without that file. Raises: InputError."""
    import httpx  # noqa: PLC0415 - 0.14 s that only a mirror on the network needs

    path = Path.home() / ".netrc"
    if not path.exists():
        return None
    try:
        return httpx.NetRCAuth(str(path))
    except (OSError, netrc.NetrcParseError) as error:
        raise InputError(f"{path} must be a readable netrc file, found: {error}; correct or remove it") from error
