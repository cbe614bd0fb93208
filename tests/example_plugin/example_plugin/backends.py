"""A store in one SQLite file: `--store sqlite:///folder/store.db`.

A transaction makes a file whole or not there at all, among all processes of one machine.
"""

import contextlib
import hashlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, unquote

from storage.backends.base import StoreBackend
from storage.errors import Fault, InputError

PIECE_BYTES = 16 << 20
"""SQLite takes at most 1 GB in one value, and a piece is in memory as a whole."""

BUSY_SECONDS = 60
"""How long a writer waits for others."""

TABLES = """
CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, bytes INTEGER NOT NULL, changed REAL NOT NULL);
CREATE TABLE IF NOT EXISTS pieces (path TEXT, number INTEGER, data BLOB NOT NULL, PRIMARY KEY (path, number));
"""


class SQLiteBackend(StoreBackend):
    """Files as rows; a connection per call, since one may not be shared among threads or across a fork."""

    exact_create = True

    def __init__(self, url: str) -> None:
        separator, path = url.partition("://")[1:]
        if not separator or not path.startswith("/") or not path.strip("/") or "\0" in unquote(path):
            raise InputError(
                f"an SQLite store must be a file of this machine, found {url!r}; write sqlite:///file"
            )
        self.file = Path(unquote(path)).absolute()
        self.url = f"sqlite://{quote(str(self.file))}"

    def read(self, path: str) -> bytes:
        """Return the content."""
        with self._transaction() as database:
            return b"".join(_pieces(database, path))

    def write(self, path: str, data: bytes) -> None:
        """Write in one transaction."""
        with self._transaction(writes=True) as database:
            _replace(database, path, [data])

    def create(self, path: str, data: bytes) -> bool:
        """Write only if absent; writers come one after the other."""
        with self._transaction(writes=True) as database:
            if database.execute("SELECT 1 FROM files WHERE path = ?", [path]).fetchone():
                return False
            _replace(database, path, [data])
            return True

    def put(self, local: Path, path: str) -> None:
        """Copy the file in one transaction, then remove it."""
        with self._transaction(writes=True) as database, local.open("rb") as file:
            _replace(database, path, iter(lambda: file.read(PIECE_BYTES), b""))
        local.unlink()

    def fetch(self, path: str, local: Path) -> None:
        """Copy the file."""
        with self._transaction() as database:
            pieces = _pieces(database, path)
            with local.open("wb") as file:
                file.writelines(pieces)

    def size(self, path: str) -> int:
        """Return the size in bytes."""
        with self._transaction() as database:
            return _size(database, path)

    def digest(self, path: str) -> tuple[int, str]:
        """Read and hash the pieces."""
        sha256 = hashlib.sha256()
        with self._transaction() as database:
            size = _size(database, path)
            for piece in _pieces(database, path):
                sha256.update(piece)
        return size, sha256.hexdigest()

    def list(self, folder: str) -> Iterator[tuple[str, int, float]]:
        """Select the files whose paths begin with the folder's; SQLite compares text as Python does."""
        where, values = ("WHERE path > ? AND path < ?", [f"{folder}/", f"{folder}0"]) if folder else ("", [])
        with self._transaction() as database:
            query = f"SELECT path, bytes, changed FROM files {where} ORDER BY path"
            found = database.execute(query, values).fetchall()
        yield from found  # after the transaction: the reader may write meanwhile

    def delete(self, path: str) -> None:
        """Remove the rows."""
        with self._transaction(writes=True) as database:
            _delete(database, path)

    @contextlib.contextmanager
    def _transaction(self, *, writes: bool = False) -> Iterator[sqlite3.Connection]:
        try:
            # A store that is only looked at is not made by that.
            name = str(self.file) if writes or _is_there(self.file) else ":memory:"
            if writes:
                self.file.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.closing(sqlite3.connect(name, BUSY_SECONDS, isolation_level=None)) as database:
                database.executescript(TABLES if writes or name == ":memory:" else "")
                database.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
                yield database
                database.execute("COMMIT")
        except sqlite3.Error as error:
            raise Fault(
                f"the store {self.url} must be a readable SQLite file, but {error}; check its disk"
            ) from error


def _is_there(file: Path) -> bool:
    try:
        return file.stat().st_size > 0  # 0: another process is making it
    except FileNotFoundError:
        return False


def _size(database: sqlite3.Connection, path: str) -> int:
    row = database.execute("SELECT bytes FROM files WHERE path = ?", [path]).fetchone()
    if row is None:
        raise FileNotFoundError(path)
    return int(row[0])


def _pieces(database: sqlite3.Connection, path: str) -> Iterator[bytes]:
    _size(database, path)
    rows = database.execute("SELECT data FROM pieces WHERE path = ? ORDER BY number", [path])
    return (data for (data,) in rows)


def _replace(database: sqlite3.Connection, path: str, pieces: Iterator[bytes] | list[bytes]) -> None:
    _delete(database, path)
    size = 0
    for number, data in enumerate(pieces):
        database.execute("INSERT INTO pieces VALUES (?, ?, ?)", [path, number, data])
        size += len(data)
    database.execute("INSERT INTO files VALUES (?, ?, ?)", [path, size, time.time()])


def _delete(database: sqlite3.Connection, path: str) -> None:
    for table in ("files", "pieces"):
        database.execute(f"DELETE FROM {table} WHERE path = ?", [path])
