"""Files in a local folder."""

import contextlib
import errno
import hashlib
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from storage.backends.base import WRITES, StoreBackend
from storage.errors import Fault, InputError, StoreAwayError

SCRATCH = "scratch"
"""Folder below a local root for unfinished work; same disk, so that finished files can be renamed."""

RACES = 100
"""How often a write is tried again because the folder that it needs was removed under its hands."""


def open_folder(url: str) -> "LocalBackend":
    """Open a folder given as its path or as `file:///...`. Raises: InputError if it is not on this machine."""
    path = url if "://" not in url else _path_in(url)
    if "\0" in path:
        raise InputError(f"a local store must be a folder, and no path holds the character 0, found {url!r}")
    return LocalBackend(Path(path))


def _path_in(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError as error:  # brackets that hold no IPv6 address
        raise InputError(f"a file:// store must be a URL, found {url!r}: {error}; write file:///folder") from error
    if parts.netloc not in ("", "localhost"):
        raise InputError(f"a file:// store must be on this machine, found {url!r}; write file:///folder")
    return unquote(parts.path)


class LocalBackend(StoreBackend):
    """A folder of this machine, written through a temporary name, flushed and renamed.

    Links to folders below the root are not followed when listing: what lies behind them belongs to someone else.
    """

    exact_create = True  # on every disk that knows hard links

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()
        self.url = str(self.root)
        if self.root.exists() and not self.root.is_dir():
            raise InputError(f"a local store must be a folder, found the file {self.url}; name another place")

    def probe(self) -> None:
        """Write a file, and make the folder that tells from now on that the root is there."""
        with self._temporary() as temporary:
            _write_flushed(temporary, b"")

    def read(self, path: str) -> bytes:
        """Return the content."""
        with self._root_there():
            return (self.root / path).read_bytes()

    def write(self, path: str, data: bytes) -> None:
        """Write through a temporary file."""
        with self._temporary() as temporary:
            _write_flushed(temporary, data)
            self._publish(temporary, path)

    def create(self, path: str, data: bytes) -> bool:
        """Write only if absent; nearly exact on a disk without hard links."""
        with self._temporary() as temporary:
            _write_flushed(temporary, data)
            return self._publish(temporary, path, replace=False)

    def put(self, local: Path, path: str) -> None:
        """Rename a file of the same disk; copy one from another disk, and what a symbolic link leads to."""
        if not local.is_symlink():
            try:
                with self._root_there():
                    _flush(local)
                    self._publish(local, path)
                return
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
        with self._temporary() as copy:
            shutil.copyfile(local, copy)
            _flush(copy)
            self._publish_copy(copy, path)
        local.unlink()

    def fetch(self, path: str, local: Path) -> None:
        """Copy the file."""
        with self._root_there():
            shutil.copyfile(self.root / path, local)

    def size(self, path: str) -> int:
        """Return the size in bytes."""
        with self._root_there():
            return (self.root / path).stat().st_size

    def digest(self, path: str) -> tuple[int, str]:
        """Read and hash the file."""
        with self._root_there(), (self.root / path).open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            return file.tell(), sha256

    def list(self, folder: str) -> Iterator[tuple[str, int, float]]:
        """Walk the folder; files that vanish meanwhile are left out, one that cannot be read is an error."""
        with self._root_there():
            found = sorted(self._walk(folder))
            self._check_root()  # what vanished under the walk's hands must not look like deleted
        yield from found

    def _walk(self, folder: str) -> Iterator[tuple[str, int, float]]:
        folders = [os.path.join(self.root, folder)]
        prefix = len(os.path.join(self.root, ""))
        while folders:
            # Not os.walk: it leaves out folders that it may not read, and a pin would not protect any more.
            with contextlib.suppress(FileNotFoundError), os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif not entry.is_dir():
                        with contextlib.suppress(FileNotFoundError):
                            status = entry.stat()
                            yield entry.path[prefix:], status.st_size, status.st_mtime

    def delete(self, path: str) -> None:
        """Remove the file and the folders that it leaves empty."""
        target = self.root / path
        with self._root_there():
            try:
                target.unlink()
            except FileNotFoundError:
                self._check_root()
        for folder in target.parents:
            if folder == self.root:
                break
            try:
                folder.rmdir()
            except OSError:  # not empty, or another process was faster
                break

    def local(self, path: str) -> Path:
        """Return the path itself."""
        return self.root / path

    def scratch(self) -> Path:
        """Return a folder below the root."""
        return self.root / SCRATCH

    def unfinished(self) -> Iterator[tuple[str, int, float]]:
        """Yield the temporary files."""
        yield from self.list(f"{SCRATCH}/{WRITES}")

    def abandon(self, name: str) -> None:
        """Remove a temporary file, but never the folder: another process may be about to use it."""
        (self.root / name).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _temporary(self) -> Iterator[Path]:
        folder = self.scratch() / WRITES
        with self._root_there():
            if not self.must_exist:
                folder.mkdir(parents=True, exist_ok=True)
            temporary = folder / uuid.uuid4().hex
            try:
                yield temporary
            finally:
                temporary.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _root_there(self) -> Iterator[None]:
        """Tell a root that is gone from a file that is: a mount that vanished, a folder that was moved away."""
        try:
            yield
        except OSError:
            self._check_root()
            raise

    def _check_root(self) -> None:
        """Raise StoreAwayError if the root was there and is not. Every write makes the folder WRITES; it stays."""
        if not self.must_exist:
            return
        try:
            os.stat(self.scratch() / WRITES)
        except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
            raise StoreAwayError(
                f"the store must stay where it is, but {self.root} is gone or closed ({error.strerror}); mount it "
                f"again or move it back: what is finished is kept"
            ) from error

    def _publish(self, temporary: Path, path: str, *, replace: bool = True) -> bool:
        # `delete` removes the folders that it empties, so the target's may vanish at any moment.
        target = self.root / path
        place = os.replace if replace else _link
        for attempt in range(RACES):
            try:
                _make_folder(target.parent, below=self.root if self.must_exist else None)
                place(temporary, target)
            except FileExistsError:
                return False
            except FileNotFoundError:
                if attempt == RACES - 1 or not os.path.lexists(temporary):
                    raise
            else:
                break
        with contextlib.suppress(FileNotFoundError):  # published, and already deleted by another process
            _flush(target.parent)
        return True

    def _publish_copy(self, copy: Path, path: str) -> None:
        try:
            self._publish(copy, path)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            raise Fault(
                f"a local store must lie on one disk, but {self.root / path} and {copy.parent} do not; "
                f"move the whole store to one disk, scratch folder included"
            ) from error


def _make_folder(folder: Path, below: Path | None) -> None:
    """Make a folder and those above it, but none that is not `below` the given one."""
    if folder == below:
        return
    try:
        folder.mkdir()
    except FileNotFoundError:
        if folder.parent == folder:
            raise
        _make_folder(folder.parent, below)
        folder.mkdir(exist_ok=True)
    except FileExistsError:  # in the way is a file, or a folder that was removed between two looks
        if not stat.S_ISDIR(os.stat(folder).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, "a file is in the way of a folder", str(folder)) from None


def _link(temporary: Path, target: Path) -> None:
    try:
        os.link(temporary, target)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        if os.path.lexists(target):  # no hard links here (exFAT, some network disks): nearly exact
            raise FileExistsError(errno.EEXIST, "the file exists", str(target)) from None
        os.replace(temporary, target)


def _write_flushed(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _flush(path: Path) -> None:
    # A rename is on disk only when the folder that holds the name is.
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # network disks that cannot flush a folder
            raise
    finally:
        os.close(handle)
