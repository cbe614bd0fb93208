"""What the store needs from a backend: a place that keeps whole files under one root."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

WRITES = "writes"
"""Folder below a backend's scratch folder in which it keeps files being written; others leave it alone."""


class StoreBackend(Protocol):
    """Files under one root, as the store sees them; adding a backend means keeping these promises.

    **Paths** are relative, with `/` between names, and a name may be any text without `/`: spaces, `%`, `+`, any
    script; nothing is normalized. Folders exist as far as files are in them. No call touches anything outside the
    root, not even in a root whose URL begins alike.

    **Whole files.** `write`, `create` and `put` show a file completely or not at all: whoever reads while a file
    is replaced, or after the writer was killed, gets the old content or the new one. Once the call has returned,
    every reader in any process sees the new one. Nothing above relies on rename or on conditional creation.

    **Errors.** A file that is not there is a FileNotFoundError, where the method says so. A root that cannot be
    reached or read is a `storage.errors.Fault`, or the OSError of a disk - in `list`, too: it never looks empty.
    What a while may heal is a StoreAwayError, said in less than a minute even if nothing ever answers, and tried
    again by `storage.backends.patient`, never for long by the backend itself; what the user must set (place,
    credentials, permissions) is an InputError. A `put` that fails leaves the local file. Credentials come from
    the environment, never from the URL, which is kept with the results.

    **Processes.** Opening touches nothing. `open_backend(backend.url)` opens the same root in any other process;
    a backend can be used by several threads at once, and by the child of a fork.

    Registered by URL scheme, in lower case, in `storage.backends.registry`, as a function from the URL to the
    backend. A class that derives from this one inherits the answers of a place that is not on this machine's disk.

    In `tests/conformance/`, `backend_checks.py` and `backend_race_checks.py` check each promise on every backend.
    One that keeps files on this machine is given a new folder, as in `name:///folder`; one that needs a server is
    run where PILE_TEST_STORES names an empty place for it:
    `PILE_TEST_STORES="gs=gs://bucket/tests az=az://container/tests"`.
    """

    url: str
    """The root, so that it means the same in every process of this machine: a relative folder made absolute."""

    exact_create: bool = False
    """Whether of several that `create` the same file at once exactly one is told True."""

    must_exist: bool = False
    """Whether this root is known to be there already: if it is gone, that is a StoreAwayError, and no new one is
    made in its place. Set by whoever opens the root of a run that is under way; only a place that a mount or a
    person can take away need look at it."""

    def probe(self) -> None:
        """Find out with little work whether the root answers and can be used; make it ready if need be.

        Raises: InputError for what the user must set, StoreAwayError, Fault, OSError.
        """
        next(iter(self.list("leases")), None)

    def read(self, path: str) -> bytes:
        """Return the content. Raises FileNotFoundError."""

    def write(self, path: str, data: bytes) -> None:
        """Write a small file, replacing what was there."""

    def create(self, path: str, data: bytes) -> bool:
        """Write a small file unless one is there; False if so.

        Of several at once at least one is told True, and the content is that of one who was; unless `exact_create`
        there may be more of them: it saves work, correctness never rests on it.
        """

    def put(self, local: Path, path: str) -> None:
        """Take over a finished local file of any size, which is gone afterwards; of a link, what it leads to."""

    def fetch(self, path: str, local: Path) -> None:
        """Copy a file to a local path. Raises FileNotFoundError."""

    def size(self, path: str) -> int:
        """Return the size in bytes. Raises FileNotFoundError."""

    def digest(self, path: str) -> tuple[int, str]:
        """Read the file piece by piece; return its bytes and SHA-256. Raises FileNotFoundError."""

    def list(self, folder: str) -> Iterator[tuple[str, int, float]]:
        """Yield (path, bytes, modification time) of every file below `folder`, at any depth, sorted by path.

        Paths are relative to the root; `""` lists all. Nothing for a folder without files. The caller
        may change the store while it reads: every file that it leaves alone is yielded once.
        """

    def delete(self, path: str) -> None:
        """Remove a file; no error if it is not there."""

    def local(self, path: str) -> Path | None:
        """Return where the file lies on this machine, None if it does not.

        Then all files do, in folders as their paths say: the parent of `local("a/b")` is `local("a")`. A file that
        lies here is checked after a crash, since a disk may have lost what was not yet on it.
        """
        return None

    def scratch(self) -> Path | None:
        """Return the folder of this machine where unfinished work is cheap to `put` from, None if there is none.

        It may be below the root. What the backend itself needs there goes into the subfolder WRITES.
        """
        return None

    def unfinished(self) -> Iterator[tuple[str, int, float]]:
        """Yield (name, bytes, start time) of writes that are under way or were cut off by a crash.

        Nothing when no write is under way and none was cut off.
        """
        yield from ()

    def abandon(self, name: str) -> None:
        """Throw away what an unfinished write has left; no error if it is not there."""


OpenBackend = Callable[[str], StoreBackend]
"""A member of the registry: opens the root that a URL names.

Raises InputError for a URL that cannot be one, or that has a user name or password in it.
"""
