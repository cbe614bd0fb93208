"""Read what a server says in its headers: as ASCII, within bounds, and as nothing at all if it is malformed.

A header is text from outside. It decides how long to wait and how much to expect, is written into a file and
sent back, and appears in messages on a terminal; none of this may fail or do harm because of what it says.
Python's own `isdigit`, `\\d` and `int` know the digits of all scripts, signs, underscores, and a limit of 4300.
"""

import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

Headers = Mapping[str, str]

NUMBER = re.compile(r"[0-9]{1,18}")
"""Up to an exabyte, and in bounds for a 64-bit integer."""
CONTENT_RANGE = re.compile(r"bytes (?:(?P<start>[0-9]{1,18})-[0-9]{1,18}|\*)/(?P<total>[0-9]{1,18}|\*)")
BYTE_RANGE = re.compile(r"bytes=(?P<start>[0-9]{1,18})-(?P<last>[0-9]{1,18})?")
STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e]{0,254}"')
"""At most 256 characters; servers use less than 100. Others than visible ASCII cannot be sent back."""
HTTP_DATE = re.compile(r"[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT")
"""The one form that servers may write since 1999 (RFC 9110, 5.6.7)."""
MAX_RETRY_AFTER_SECONDS = 86_400.0
SHOWN_CHARACTERS = 200


def printable(text: str, limit: int = SHOWN_CHARACTERS) -> str:
    """Return text from outside as it may reach a terminal or a log: one line, no controls, not too long."""
    shown = "".join(character if character.isprintable() else "?" for character in text[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."


def content_length(headers: Headers) -> int:
    """Return the number of bytes that the body is said to have, 0 if that is unknown."""
    if "Transfer-Encoding" in headers:  # which overrides the other one (RFC 9112, 6.3)
        return 0
    value = headers.get("Content-Length", "").strip(" \t")
    return int(value) if NUMBER.fullmatch(value) else 0


def content_range(headers: Headers) -> tuple[int | None, int | None]:
    """Return the first byte of a partial body and the size of the whole, None for what is not said."""
    match = CONTENT_RANGE.fullmatch(headers.get("Content-Range", "").strip(" \t"))
    if match is None:
        return None, None
    start, total = match["start"], match["total"]
    return int(start) if start else None, int(total) if total != "*" else None


def byte_range(value: str) -> tuple[int, int | None] | None:
    """Return first and last byte that a client's Range asks for, None if that is no range that we serve."""
    match = BYTE_RANGE.fullmatch(value.strip(" \t"))
    if match is None:
        return None
    return int(match["start"]), int(match["last"]) if match["last"] else None


def retry_after(headers: Headers) -> float:
    """Return the seconds for which the server asks to be left alone, 0 without such a wish."""
    value = headers.get("Retry-After", "").strip(" \t")
    seconds = 0.0
    if NUMBER.fullmatch(value):
        seconds = float(value)
    elif HTTP_DATE.fullmatch(value):
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return 0.0  # a 31 February
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)


def file_version(headers: Headers) -> str:
    """Return what If-Range may ask for: a strong ETag, else the date of the last change, else nothing."""
    return known_version(headers.get("ETag", "")) or known_version(headers.get("Last-Modified", ""))


def known_version(value: str) -> str:
    """Return a version of a file if it can be sent to a server, '' for anything else."""
    value = value.strip(" \t")
    return value if STRONG_ETAG.fullmatch(value) or HTTP_DATE.fullmatch(value) else ""
