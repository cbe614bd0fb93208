"""Archives: every file within is read by the reader of its name; ids of documents carry the names of both.

A file within is copied to a temporary file (below TMPDIR) while it is read, since formats like Parquet need to go
back and forth in it.
"""

import io
import logging
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

import orjson

from storage.errors import InputError
from storage.sources.readers.archive.members import ZIP, Member, members, read_member
from storage.sources.readers.base import DEFAULT_COLUMNS, Columns, Item, Reader
from storage.sources.readers.chunks import SHORT_NAMES, with_compressions, write_compressed

log = logging.getLogger(__name__)

COPIED_BYTES = 64 << 10
MAX_FILE_BYTES = 16 << 30
"""A larger file within may be a trap for the disk, and costs less time when it is unpacked once."""
MAX_ARCHIVE_BYTES = 1 << 40
"""Likewise of all files in an archive together."""
LOOKED_AT = 20
"""Files at the beginning of an archive in which the text field is looked for, to say which it is."""
NAMED = 10
"""Files that are left out and named on the log."""


class ArchiveReader(Reader):
    """Reads `.zip`, and `.tar` plain and compressed. Offsets are those of the files within, in a row."""

    name = "archive"
    version = 1
    suffixes = (ZIP, *with_compressions(".tar"), *SHORT_NAMES)

    @classmethod
    def example(
        cls, path: Path, texts: Sequence[str], columns: Columns = DEFAULT_COLUMNS
    ) -> list[tuple[int, str | None]]:
        """Write an archive with one file of JSON lines, the second of which has no text."""
        lines: list[tuple[bytes, str | None]] = [(orjson.dumps({columns.text[0]: text}), text) for text in texts]
        lines.insert(1, (b'{"no text": null}', None))
        _write(path, "inner/b.jsonl", b"".join(line + b"\n" for line, _ in lines))
        found, offset = [], 0
        for line, text in lines:
            found.append((offset, text))
            offset += len(line) + 1
        return found

    def read(self, path: Path, name: str, columns: Columns, wanted: Callable[[int], bool]) -> Iterator[Item]:
        """Yield the wanted records of all files."""
        begin = 0
        for inner, copy, reader in self._files(path, columns):
            here = begin

            def wanted_here(offset: int, here: int = here) -> bool:
                return wanted(here + offset)

            with _ErrorsOf(path, inner, copy):
                for offset, item in reader.read(copy, f"{name}/{inner}", columns, wanted_here):
                    yield begin + offset, item
                begin += reader.measure(copy, columns)

    def measure(self, path: Path, columns: Columns) -> int:
        """Return the sum of what the readers of the files measure; say on the log what is left out."""
        total = 0
        left_out: list[str] = []
        for inner, copy, reader in self._files(path, columns, left_out):
            with _ErrorsOf(path, inner, copy):
                total += reader.measure(copy, columns)
        if left_out:
            more = f" and {len(left_out) - NAMED} more" if len(left_out) > NAMED else ""
            log.warning("not taken from %s: %s%s", path, ", ".join(left_out[:NAMED]), more)
        return total

    def text_fields(self, path: Path, name: str, columns: Columns) -> dict[str, str]:
        """Look into the first files."""
        found: dict[str, str] = {}
        for inner, copy, reader in islice(self._files(path, columns), LOOKED_AT):
            with _ErrorsOf(path, inner, copy):
                found |= reader.text_fields(copy, f"{name}/{inner}", columns)
        return found

    def _files(
        self, path: Path, columns: Columns, left_out: list[str] | None = None
    ) -> Iterator[tuple[str, Path, Reader]]:
        """Yield name, copy and reader of each file; the copy is there until the next one is asked for."""
        left_out = [] if left_out is None else left_out
        seen: set[str] = set()
        room = MAX_ARCHIVE_BYTES
        with TemporaryDirectory(prefix="pile-archive-") as folder:
            for member in members(path, columns.max_window):
                name = _safe_name(path, member.name)
                reader = self._reader_of(path, name)
                if member.other_kind or reader is None:
                    left_out.append(f"{name} ({member.other_kind or 'no reader'})")
                    continue
                if name in seen:
                    raise InputError(f"{path} must hold each file once, found two named {name!r}; pack it again")
                seen.add(name)
                copy = Path(folder) / PurePosixPath(name).name[-100:]
                room -= _copy(path, replace(member, name=name), copy, room)
                yield name, copy, reader
                copy.unlink()
        if not seen:
            found = ", ".join(left_out[:NAMED]) or "nothing"
            raise InputError(f"{path} must hold a file that can be read as documents, found {found}")

    def _reader_of(self, path: Path, name: str) -> Reader | None:
        parts = PurePosixPath(name).parts
        if parts[-1].startswith("._") or parts[0] == "__MACOSX":
            return None  # what macOS packs beside a file, under the same ending
        if name.lower().endswith(self.suffixes):
            raise InputError(f"{path} must hold no archives, found {name!r} in it; unpack the outer one")
        try:
            return self.reader_for(name)
        except InputError:
            return None


class _ErrorsOf:
    """Makes errors that name the copy of a file name the archive and the file."""

    def __init__(self, path: Path, inner: str, copy: Path) -> None:
        self._place = f"{path}/{inner}"
        self._copy = str(copy)

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, InputError):
            raise InputError(str(error).replace(self._copy, self._place)) from error


def _safe_name(path: Path, name: str) -> str:
    """Return the name of a file within without a leading `./`."""
    kept = [part for part in name.split("/") if part != "."]
    if ".." in kept or "" in kept or "\\" in name or not name.isprintable():
        raise InputError(
            f"{path} must name files below its own folder in printable text, found {name[:200]!r}; pack it again"
        )
    return "/".join(kept)


def _copy(path: Path, member: Member, copy: Path, room: int) -> int:
    size = 0
    with copy.open("wb") as file:
        for piece in read_member(path, member, COPIED_BYTES):
            size += len(piece)
            if size > min(room, MAX_FILE_BYTES):
                raise InputError(
                    f"files in archives must have at most {MAX_FILE_BYTES} bytes, and all of one together "
                    f"{MAX_ARCHIVE_BYTES}, found more in {member.name!r} of {path}; unpack it and name the files "
                    f"instead"
                )
            file.write(piece)
    return size


def _write(path: Path, name: str, data: bytes) -> None:
    if path.name.endswith(ZIP):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
            zipped.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
        return
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    end = tarfile.BLOCKSIZE * (1 + -(-len(data) // tarfile.BLOCKSIZE) + 2)
    write_compressed(path, packed.getvalue()[:end])  # without the padding to whole records
