"""Fetch files from an HTTP mirror: continued by byte range, retried, checked against a SHA-256.

A file is written to `<target>.partial`, with the server's version of it (ETag or Last-Modified) in
`<target>.partial.version`; it gets its own name when its checksum is right. A killed download therefore
continues at the byte where it stopped, and a file under its own name is complete.

httpx is imported when a mirror is opened: 0.14 s that `pile plan` with local data need not pay.
"""

import email.utils
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote, urlsplit

from storage.artifacts.store import file_sha256
from storage.errors import Fault, InputError
from storage.sources.http.safety import check_redirect, is_private, netrc_auth, shown

if TYPE_CHECKING:
    import httpx

log = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")

MAX_REDIRECTS = 5
FIRST_WAIT_SECONDS = 1.0
"""Pause after a failed attempt, doubled with each further one."""
MAX_WAIT_SECONDS = 300.0
"""Longest pause between two attempts, whatever `Retry-After` asks for."""
PROGRESS_BYTES = 1 << 20
"""An attempt that brought this much was not in vain: the count of failures starts again."""
CONTENT_RANGE = re.compile(r"bytes (?:(?P<start>\d+)-\d+|\*)/(?P<total>\d+|\*)")


class MissingFile(InputError):
    """The mirror answered that it has no such file."""


class _TryAgain(Exception):
    """The server asked for patience, or sent something that a repetition may heal."""

    def __init__(self, reason: str, wait_seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_seconds = wait_seconds


class Meter:
    """Counts the bytes of several downloads for their spectator, and tells all of them to stop."""

    def __init__(self, files: int) -> None:
        self.files = files
        self.stop = threading.Event()
        self._bytes: dict[str, tuple[int, int]] = {}

    def update(self, name: str, have: int, size: int) -> None:
        """Note that `have` of the `size` bytes of a file are there. Raises: Fault if all shall stop."""
        self._bytes[name] = (have, size)
        if self.stop.is_set():
            raise Fault(f"the download of {name} was stopped; run again to continue where it was")

    def read(self) -> tuple[int, int]:
        """Return the bytes that are there and the expected total: files not begun count as average."""
        known = list(self._bytes.copy().values())
        total = sum(size for _, size in known)
        return sum(have for have, _ in known), total * self.files // max(1, len(known))


class HttpMirror:
    """Files below one URL. One object serves many threads; close it at the end."""

    def __init__(self, url: str, *, timeout_seconds: float = 30.0, retries: int = 5) -> None:
        import httpx  # noqa: PLC0415 - see the docstring of this module

        self.url = shown(url)
        self.retries = retries
        self._base = url.rstrip("/")
        host = urlsplit(url).hostname or ""
        # httpx logs every URL with its query, and redirects of object stores carry signatures there.
        logging.getLogger("httpx").setLevel(logging.WARNING)
        self._client = httpx.Client(
            auth=netrc_auth(),
            timeout=timeout_seconds,
            headers={"User-Agent": "pile-pipeline", "Accept-Encoding": "identity"},
            limits=httpx.Limits(max_connections=None),
            trust_env=not is_private(host),  # a proxy of the outside world does not reach this machine
        )

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def read(self, name: str, limit: int) -> bytes:
        """Return a small file. Raises: MissingFile, InputError (also above `limit` bytes), Fault."""
        return self._retried(name, lambda: self._read(name, limit), lambda: 0, threading.Event())

    def fetch(self, name: str, sha256: str, target: Path, meter: Meter) -> None:
        """Bring a file to `target`, continuing what an earlier attempt left there.

        Raises: InputError for a wrong checksum and for answers that repeating does not change (401, 403,
        404), Fault for a mirror that cannot be reached, OSError from the local disk.
        """
        partial = target.with_name(target.name + ".partial")
        version = target.with_name(target.name + ".partial.version")
        if target.exists():
            if file_sha256(target) == sha256:
                meter.update(name, target.stat().st_size, target.stat().st_size)
                return
            log.warning("%s is damaged; fetching it again", target)
            target.unlink()
        target.parent.mkdir(parents=True, exist_ok=True)
        for last_chance in (False, True):
            continued = self._retried(
                name,
                lambda: self._append(name, partial, version, meter),
                lambda: _size(partial),
                meter.stop,
            )
            found = file_sha256(partial)
            if found == sha256:
                break
            partial.unlink()
            if last_chance or not continued:
                raise InputError(
                    f"{self._shown(name)} must have sha256 {sha256} as its SHA256SUMS.txt says, found {found}; "
                    f"the mirror is damaged or was changed: renew its SHA256SUMS.txt or use another mirror"
                )
            log.warning("%s has a wrong checksum after it was continued; fetching all of it", self._shown(name))
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, target)
        version.unlink(missing_ok=True)

    def _read(self, name: str, limit: int) -> bytes:
        with self._request(name, {}) as response:
            if response.status_code != 200:
                raise self._refused(name, response)
            data = b""
            for chunk in response.iter_raw():
                data += chunk
                if len(data) > limit:
                    raise InputError(f"{self._shown(name)} must have at most {limit} bytes, found more")
            return data

    def _append(self, name: str, partial: Path, version: Path, meter: Meter) -> bool:
        """Bring what is missing; return whether an earlier part was continued."""
        have = _size(partial)
        known = version.read_text() if have and version.exists() else ""
        headers = {"Range": f"bytes={have}-"} if have else {}
        if known:
            headers["If-Range"] = known
        with self._request(name, headers) as response:
            if have and response.status_code == 206:
                total = self._check_continuation(response, partial, known)
                mode = "ab"
            elif have and response.status_code == 416:
                if _content_range(response)[1] == have:
                    return True  # everything was there already
                partial.unlink()
                raise _TryAgain(f"the server has no bytes after {have}")
            elif response.status_code == 200:
                total = int(response.headers.get("Content-Length", 0))
                mode, have = "wb", 0
            else:
                raise self._refused(name, response)
            with partial.open(mode) as file:
                if mode == "wb":  # only now, when the bytes of another version are gone
                    version.write_text(_version(response))
                for chunk in response.iter_raw():
                    file.write(chunk)
                    file.flush()  # kill -9 loses what Python still holds
                    have += len(chunk)
                    meter.update(name, have, max(total, have))
        if have < total:
            raise _TryAgain(f"the connection ended after {have} of {total} bytes")
        return mode == "ab"

    def _check_continuation(self, response: "httpx.Response", partial: Path, known: str) -> int:
        start, total = _content_range(response)
        changed = known and _version(response) not in ("", known)
        if start != _size(partial) or total is None or changed:
            partial.unlink()
            raise _TryAgain("the server continued at another byte or with another version of the file")
        return total

    @contextmanager
    def _request(self, name: str, headers: dict[str, str]) -> Iterator["httpx.Response"]:
        """Send a GET and follow its redirects, none of which may lead to a less safe place."""
        import httpx  # noqa: PLC0415 - loaded by __init__

        request = self._client.build_request("GET", f"{self._base}/{quote(name)}", headers=headers)
        for _ in range(MAX_REDIRECTS + 1):
            try:
                response = self._client.send(request, stream=True)
            except httpx.InvalidURL as error:
                raise InputError(
                    f"{self._shown(name)} must redirect to https or http, found no such address ({error}); "
                    f"check the address of the mirror"
                ) from error
            try:
                if response.next_request is None:
                    yield response
                    return
            finally:
                response.close()
            check_redirect(str(request.url), str(response.next_request.url))
            request = response.next_request
        raise InputError(f"{self._shown(name)} must lead to a file, found more than {MAX_REDIRECTS} redirects")

    def _refused(self, name: str, response: "httpx.Response") -> Exception:
        status = f"{response.status_code} {response.reason_phrase}".strip()
        if response.status_code in (408, 425, 429) or response.status_code >= 500:
            return _TryAgain(f"the server answered {status}", _retry_after(response))
        message = f"{self._shown(name)} must be readable, the server answered {status}; "
        if response.status_code == 404:
            return MissingFile(message + "check the address of the mirror and its SHA256SUMS.txt")
        if response.status_code in (401, 403):
            return InputError(message + "put user name and password of this host into ~/.netrc")
        return InputError(message + "check the address of the mirror")

    def _retried(
        self, name: str, action: Callable[[], ResultT], position: Callable[[], int], stop: threading.Event
    ) -> ResultT:
        """Repeat `action` until it works or fails too often without moving `position` forward."""
        import httpx  # noqa: PLC0415 - loaded by __init__

        failures = 0
        while True:
            before = position()
            try:
                return action()
            except (_TryAgain, httpx.TransportError) as error:
                reason = str(error) or type(error).__name__
                wait = getattr(error, "wait_seconds", 0.0)
            failures = 1 if position() - before >= PROGRESS_BYTES else failures + 1
            if failures > self.retries:
                raise Fault(
                    f"{self._shown(name)} must be reachable, but {failures} attempts failed ({reason}); check the "
                    f"network and the mirror, then run again: what has arrived is kept"
                )
            wait = min(max(wait, FIRST_WAIT_SECONDS * 2 ** (failures - 1)), MAX_WAIT_SECONDS)
            log.warning("%s: %s; trying again in %.0f s", self._shown(name), reason, wait)
            if stop.wait(wait):
                raise Fault(f"the download of {name} was stopped; run again to continue where it was")

    def _shown(self, name: str) -> str:
        return f"{self.url}/{name}"


def _content_range(response: "httpx.Response") -> tuple[int | None, int | None]:
    match = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    if match is None:
        return None, None
    return tuple(int(value) if value and value != "*" else None for value in match.group("start", "total"))  # type: ignore[return-value]


def _version(response: "httpx.Response") -> str:
    """Return what If-Range may ask for: a strong ETag, else the date of the last change, else nothing."""
    etag = response.headers.get("ETag", "")
    if etag and not etag.startswith("W/"):
        return etag
    return response.headers.get("Last-Modified", "")


def _retry_after(response: "httpx.Response") -> float:
    value = response.headers.get("Retry-After", "")
    if value.isdigit():
        return float(value)
    try:
        return email.utils.parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, TypeError):
        return 0.0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
