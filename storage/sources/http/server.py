"""Serve one folder on the loopback address, with byte ranges and entity tags.

It stands in for a mirror where there is no network: the same downloader talks to it. `python -m http.server`
knows no byte ranges.
"""

import http.server
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from storage.sources.http.headers import byte_range

log = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 18


class FolderHandler(http.server.BaseHTTPRequestHandler):
    """Answers GET and HEAD for the files of a folder; one range per request."""

    protocol_version = "HTTP/1.1"
    timeout = 60.0
    """Seconds until a connection on which nothing happens is closed."""

    def __init__(self, *arguments: Any, folder: Path) -> None:
        self.folder = folder.resolve()
        super().__init__(*arguments)

    def do_GET(self) -> None:
        """Send a file or the part of it that was asked for."""
        path = self._path()
        if path is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        with path.open("rb") as file:
            start, end = self._send_head(path)
            if self.command == "HEAD":
                return
            file.seek(start)
            while start < end and (chunk := file.read(min(CHUNK_BYTES, end - start))):
                self.wfile.write(chunk)
                start += len(chunk)

    do_HEAD = do_GET

    def log_message(self, format: str, *arguments: Any) -> None:
        """Write requests to the log instead of the console."""
        log.debug(format, *arguments)

    def _path(self) -> Path | None:
        try:
            path = (self.folder / unquote(urlsplit(self.path).path).lstrip("/")).resolve()
            return path if path.is_relative_to(self.folder) and path.is_file() else None
        except (OSError, ValueError):
            return None  # a name that no file can have: a null byte, too many characters

    def _send_head(self, path: Path) -> tuple[int, int]:
        status = path.stat()
        tag = f'"{status.st_size:x}-{status.st_mtime_ns:x}"'
        start, end = 0, status.st_size
        wanted = byte_range(self.headers.get("Range", ""))
        if wanted and self.headers.get("If-Range", tag) == tag:
            start, last = wanted
            end = end if last is None else min(end, last + 1)
            if start >= status.st_size or start >= end:
                self.send_response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
                self.send_header("Content-Range", f"bytes */{status.st_size}")
                start = end = 0
            else:
                self.send_response(HTTPStatus.PARTIAL_CONTENT)
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{status.st_size}")
        else:
            self.send_response(HTTPStatus.OK)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", tag)
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        return start, end


class _Server(http.server.ThreadingHTTPServer):
    """A server that is silent when a client goes away in the middle of a file."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("connection from %s ended early", client_address, exc_info=True)


@contextmanager
def serve_folder(folder: Path, handler: type[FolderHandler] = FolderHandler) -> Iterator[str]:
    """Serve `folder` from a free port of 127.0.0.1 while the context lasts; yields the URL."""
    server = _Server(("127.0.0.1", 0), partial(handler, folder=folder))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
