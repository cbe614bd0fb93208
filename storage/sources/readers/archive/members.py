"""The files within tar and zip archives, one by one in bounded memory; nothing is unpacked to their names."""

import itertools
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from errno import EINVAL
from pathlib import Path
from typing import IO, Any, Self

from storage.errors import InputError
from storage.sources.readers.chunks import damaged, read_chunks

ZIP = ".zip"

ERRORS = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    NotImplementedError,
    LookupError,
    ArithmeticError,
    UnicodeError,
)
"""What the libraries raise for damaged archives, beside OSError without a number."""


@dataclass(frozen=True)
class Member:
    """One entry of an archive."""

    name: str
    other_kind: str
    """What it is if it is no file: link, device; '' for a file."""
    open: Callable[[], AbstractContextManager[IO[bytes]]]
    """Opens it; its bytes must be read before the next member is asked for."""


def members(path: Path, max_window: int) -> Iterator[Member]:
    """Yield the entries but for folders.

    Raises: InputError if the archive is damaged, cut short, encrypted or split.
    """
    try:
        yield from _zip_members(path) if path.name.lower().endswith(ZIP) else _tar_members(path, max_window)
    except (OSError, *ERRORS) as error:
        _raise_if_of_disk(error)
        raise damaged(path, _reason(error)) from error


def read_member(path: Path, member: Member, piece_bytes: int) -> Iterator[bytes]:
    """Yield the bytes of a member. Raises: InputError if it is damaged, which its checksum tells."""
    try:
        with member.open() as file:
            while piece := file.read(piece_bytes):
                yield piece
    except (OSError, ValueError, *ERRORS) as error:
        if isinstance(error, InputError):
            raise
        _raise_if_of_disk(error)
        raise damaged(path, f"its file {member.name!r} cannot be read ({_reason(error)})") from error


def _zip_members(path: Path) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.flag_bits & 0x1:
                raise InputError(
                    f"{path} must not be encrypted, but its file {info.filename!r} is; unpack it with its "
                    f"password and name the files instead"
                )
            kind = stat.S_IFMT(info.external_attr >> 16)
            if not info.is_dir():
                other = "link" if kind == stat.S_IFLNK else "" if kind in (0, stat.S_IFREG) else "device"
                yield Member(info.filename, other, lambda info=info: archive.open(info))  # type: ignore[misc]


def _tar_members(path: Path, max_window: int) -> Iterator[Member]:
    chunks = _Chunks(read_chunks(path, max_window))
    # By blocks: what tarfile reads ahead, nobody sees any more.
    with tarfile.open(fileobj=chunks, mode="r|", tarinfo=_StrictHeader, bufsize=tarfile.BLOCKSIZE) as archive:  # type: ignore[call-overload]
        for info in archive:
            archive.members.clear()  # tarfile keeps them all
            if info.isdir():
                continue
            other = "link" if info.issym() or info.islnk() else "" if info.isreg() else "device"
            if info.issparse():
                other = "sparse file"
            yield Member(info.name, other, lambda info=info: _taken(archive, info))  # type: ignore[misc]
    if chunks.has_more():
        raise tarfile.ReadError("something stands behind its end: are these several archives in one file?")


def _taken(archive: tarfile.TarFile, info: tarfile.TarInfo) -> Any:
    file = archive.extractfile(info)
    if file is None:
        raise tarfile.ReadError("it is no file")
    return file


class _StrictHeader(tarfile.TarInfo):
    """A header that must be one: tarfile takes a damaged header, and a missing end, for the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            found = "it ends without an end mark: it is cut short" if not buf else f"{error} of a file in it"
            raise tarfile.ReadError(found) from error


class _Chunks:
    """Pieces of bytes as the file that tarfile reads from its beginning to its end."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._held = b""

    def read(self, size: int) -> bytes:
        """Return that many bytes, fewer at the end."""
        pieces, missing = [], size
        while missing:
            if not self._held:
                self._held = next(self._chunks, b"")
                if not self._held:
                    break
            piece, self._held = self._held[:missing], self._held[missing:]
            pieces.append(piece)
            missing -= len(piece)
        return b"".join(pieces)

    def has_more(self) -> bool:
        """Read to the end, which also checks the compression; tell whether there is more than padding."""
        return any(piece.strip(b"\0") != b"" for piece in itertools.chain([self._held], self._chunks))


def _raise_if_of_disk(error: Exception) -> None:
    """Raise what is wrong with the disk; a place that no file has is what a damaged archive leads to."""
    if isinstance(error, OSError) and error.errno not in (None, EINVAL):
        raise error


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
