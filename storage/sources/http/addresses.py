"""Which addresses the HTTP downloader may connect to.

A redirect, or the DNS record of a name, comes from outside and may point into the user's own network: at
this machine, at a router, at the metadata service of a cloud. Names and spellings of addresses are endless
(`2130706433`, `127.1`, `localhost.`, any name whose record says 10.0.0.1), so what is checked is the address
that a connection is about to use, every time, and the connection goes to exactly that address.

The user chose the mirror, which may therefore lie in a private network; as long as it does, so may what it
redirects to. A mirror that has a public address leads to public addresses only, whatever DNS says later.
A proxy is the user's choice too: it gets the name, resolves it, and decides itself where it connects.
"""

import ipaddress
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from storage.errors import InputError
from storage.sources.http.headers import printable

Resolve = Callable[[str, int], list[str]]
"""(host, port) -> its addresses, best first. Raises: OSError if there is none."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

UNICAST = ipaddress.IPv6Network("2000::/3")
"""All that IANA has given out of IPv6 for use on the internet; whatever lies outside is special."""
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""The last 32 bits are the IPv4 address that a gateway connects to (RFC 6052)."""
NOT_GLOBAL = (
    ipaddress.ip_network("192.0.0.0/24"),  # protocol assignments, and the metadata service of one cloud
    ipaddress.ip_network("192.88.99.0/24"),  # the nearest 6to4 relay, withdrawn by RFC 7526
    ipaddress.ip_network("3fff::/20"),  # documentation, RFC 9637
)
"""Special purpose networks that `ipaddress.is_global` of Python 3.11 does not know as such."""

_public_hosts: set[str] = set()
"""Hosts that had a public address once in this process: a run opens its mirror several times, and a name that
turns private in between must not count as one that always was."""


def system_addresses(host: str, port: int) -> list[str]:
    """Ask the system for the addresses of a host. Raises: OSError if there is none."""
    try:
        # As bytes: for text Python applies an older IDNA first, and fails in its own ways.
        found = socket.getaddrinfo(host.encode("ascii"), port, type=socket.SOCK_STREAM)
    except (UnicodeError, ValueError, OverflowError) as error:
        raise OSError(f"{printable(host)} is not the name of a host") from error
    return list(dict.fromkeys(_with_scope(*address) for *_, address in found))


def is_global(address: str) -> bool:
    """Tell whether an IP address belongs to one machine on the internet, also when it carries another address."""
    try:
        return _is_global(ipaddress.ip_address(address.partition("%")[0]))
    except ValueError:
        return False


def is_private(host: str) -> bool:
    """Tell without a look-up whether a host is written as this machine or as an address that is not global.

    For what must be known before a connection, and for what goes to a proxy as a name.
    """
    name = unquote(host).lower()
    try:
        found = socket.getaddrinfo(name.encode("ascii"), None, flags=socket.AI_NUMERICHOST)
    except (OSError, ValueError):
        name = name.rstrip(".")
        return name == "localhost" or name.endswith(".localhost")
    return not all(is_global(str(address[0])) for *_, address in found)


class AddressGuard:
    """Resolves the hosts of one mirror and its redirects, and refuses the addresses they must not have."""

    def __init__(self, mirror_host: str, shown_url: str, resolve: Resolve = system_addresses) -> None:
        self._mirror_host = mirror_host
        self._shown_url = shown_url
        self._resolve = resolve
        self._resolved: set[str] = set()

    def addresses(self, host: str, port: int, *, outside: bool) -> list[str]:
        """Return the addresses that may be connected to; `outside` tells that the URL came from the internet.

        One private address among public ones is enough to refuse: which of them a connection would use is
        up to chance. Raises: InputError, OSError if the host has no address.
        """
        found = self._resolve(host, port)
        inner = [address for address in found if not is_global(address)]
        if len(inner) < len(found):
            _public_hosts.add(host)
        self._resolved.add(host)
        if inner and (outside or not self.is_inside(self._mirror_host)):
            raise InputError(self._refusal(host, inner))
        return found

    def _refusal(self, host: str, inner: list[str]) -> str:
        found = f"found {printable(', '.join(inner))} as the address of {printable(host)}"
        if self.is_inside(self._mirror_host):
            return (
                f"the mirror {self._shown_url} must not lead out of its private network and back into it, "
                f"{found}, to which a public host redirected; mend the redirects of the mirror"
            )
        return (
            f"the public mirror {self._shown_url} must lead to public addresses only, {found}; check the address "
            f"of the mirror and the DNS record; if a private network is meant, name a host that has only private "
            f"addresses as the mirror"
        )

    def is_inside(self, host: str) -> bool:
        """Tell whether a host lies in the private network of a private mirror: it was met there, never outside."""
        return all(name in self._resolved and name not in _public_hosts for name in (host, self._mirror_host))


def _is_global(address: Address) -> bool:
    if any(address.version == network.version and address in network for network in NOT_GLOBAL):
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return address.is_global and not address.is_multicast
    carried = address.ipv4_mapped or address.sixtofour
    if address in NAT64:
        carried = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if carried is not None:
        return _is_global(carried)
    return address in UNICAST and address.is_global


def _with_scope(host: Any, port: Any, flow: int = 0, scope: int = 0) -> str:
    """Return the host of a socket address; a link-local one means nothing without its interface."""
    return f"{host}%{scope}" if scope and "%" not in host else host
