"""A file -> its unpacked bytes in pieces of bounded size. The only place that knows compression and encodings."""

import bz2
import gzip
import lzma
from collections.abc import Iterator
from pathlib import Path

import zstandard

from storage.errors import InputError
from storage.formats.compression import UNPACKERS, StreamError, WindowError, unpacked

CHUNK_BYTES = 1 << 20
COMPRESSED_CHUNK_BYTES = 8 << 10
"""zstd expands at most 32,768-fold (128 KiB from a block of 4 bytes): 256 MiB from one piece of 8 KiB."""
COMPRESSIONS = tuple(UNPACKERS)
SHORT_NAMES = {".tgz": ".gz", ".tbz2": ".bz2", ".txz": ".xz", ".tzst": ".zst"}
MAX_WINDOW_BYTES = 2 << 30
"""What `zstd --long=31` needs, the most that there is."""

BOM = b"\xef\xbb\xbf"
OTHER_ENCODINGS = {
    b"\0\0\xfe\xff": "UTF-32BE",
    b"\xff\xfe\0\0": "UTF-32LE",
    b"\xfe\xff": "UTF-16BE",
    b"\xff\xfe": "UTF-16LE",
}
"""Byte order marks; the longer ones first."""
NUL_PATTERNS = {"...x": "UTF-32BE", "x...": "UTF-32LE", ".x.x": "UTF-16BE", "x.x.": "UTF-16LE"}
"""How four bytes begin a file without a mark: `.` is a zero, `x` is none."""


def read_chunks(path: Path, max_window: int = MAX_WINDOW_BYTES) -> Iterator[bytes]:
    """Yield the unpacked bytes.

    Raises: InputError if a compressed file is cut short or damaged, or needs a larger window than is allowed.
    """
    kind = UNPACKERS.get(compression_of(path.name))
    if kind is None:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk
        return
    try:
        yield from unpacked(
            path, kind, max_window=max_window, read_bytes=COMPRESSED_CHUNK_BYTES, piece_bytes=CHUNK_BYTES
        )
    except StreamError as error:
        raise damaged(path, str(error)) from error
    except WindowError as error:
        raise InputError(
            f"{path} {error}: raise download.source.max_window_mb, which costs as much memory for each file "
            f"that is read at the same time, or pack the file again without --long"
        ) from error


def text_chunks(path: Path, max_window: int = MAX_WINDOW_BYTES) -> Iterator[bytes]:
    """Yield the unpacked bytes of a file of text, a byte order mark among them.

    Raises: InputError, also for a file of another encoding than UTF-8.
    """
    held: bytes | None = b""
    for chunk in read_chunks(path, max_window):
        if held is None:
            yield chunk
            continue
        held += chunk
        if len(held) >= 8:
            _check_encoding(path, held)
            yield held
            held = None
    if held:
        _check_encoding(path, held)
        yield held


def uncompressed_bytes(path: Path, max_window: int = MAX_WINDOW_BYTES) -> int:
    """Return how many bytes `read_chunks` yields. Raises: InputError."""
    if not compression_of(path.name):
        return path.stat().st_size
    return sum(len(chunk) for chunk in read_chunks(path, max_window))


def compression_of(name: str) -> str:
    """Return the end of a file's name that says how it is compressed, in lower case, '' if it is not."""
    end = name[name.rfind(".") :].lower() if "." in name else ""
    end = SHORT_NAMES.get(end, end)
    return end if end in UNPACKERS else ""


def with_compressions(*suffixes: str) -> tuple[str, ...]:
    """Return ends of names, each plain and with every compression behind it."""
    return tuple(f"{suffix}{compression}" for suffix in suffixes for compression in ("", *COMPRESSIONS))


def write_compressed(path: Path, data: bytes) -> None:
    """Write a small file, compressed as the end of its name says."""
    match compression_of(path.name):
        case ".zst":
            data = zstandard.ZstdCompressor(write_checksum=True).compress(data)
        case ".gz":
            data = gzip.compress(data)
        case ".bz2":
            data = bz2.compress(data)
        case ".xz":
            data = lzma.compress(data, preset=0)  # whose dictionary is small
    path.write_bytes(data)


def damaged(path: Path, reason: str) -> InputError:
    """Return the error that a file is not whole."""
    kind = path.name.rpartition(".")[2]
    return InputError(f"{path} must be a complete {kind} file, but {reason}; fetch or make it again")


def _check_encoding(path: Path, begin: bytes) -> None:
    found = next((name for mark, name in OTHER_ENCODINGS.items() if begin.startswith(mark)), "")
    if not found and len(begin) >= 4:
        # Twice in a row, if there is so much: a zero alone may be text.
        patterns = {
            "".join("x" if byte else "." for byte in begin[i : i + 4]) for i in (0, 4) if len(begin) >= i + 4
        }
        found = NUL_PATTERNS.get(patterns.pop(), "") if len(patterns) == 1 else ""
    if found:
        whole = str(path).removesuffix(path.suffix) if compression_of(path.name) else str(path)
        raise InputError(
            f"{path} must be UTF-8, found {found}; convert it: "
            f"iconv -f {found} -t UTF-8 {Path(whole).name} > {Path(whole).stem}-utf8{Path(whole).suffix}"
        )
