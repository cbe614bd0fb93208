"""A file -> its uncompressed bytes in pieces of bounded size. The only place that knows compression."""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

import zstandard

from storage.errors import InputError
from storage.formats.documents import read_zstd_chunks

CHUNK_BYTES = 1 << 20
COMPRESSED_CHUNK_BYTES = 8 << 10
"""zstd expands at most 32,768-fold (128 KiB from a block of 4 bytes): 256 MiB from one piece of 8 KiB."""
COMPRESSIONS = (".zst", ".gz")


def read_chunks(path: Path) -> Iterator[bytes]:
    """Yield the uncompressed bytes. Raises: InputError if a compressed file is cut short or damaged."""
    if not path.name.endswith(COMPRESSIONS):
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk
        return
    if path.stat().st_size == 0:
        raise damaged(path, "it is empty")
    try:
        if path.name.endswith(".zst"):
            for piece in read_zstd_chunks(path, COMPRESSED_CHUNK_BYTES):
                for start in range(0, len(piece), CHUNK_BYTES):
                    yield piece[start : start + CHUNK_BYTES]
        else:
            with gzip.open(path) as unpacked:
                while chunk := unpacked.read(CHUNK_BYTES):
                    yield chunk
    except (zstandard.ZstdError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise damaged(path, str(error)) from error


def uncompressed_bytes(path: Path) -> int:
    """Return how many bytes `read_chunks` yields. Raises: InputError."""
    if not path.name.endswith(COMPRESSIONS):
        return path.stat().st_size
    return sum(len(chunk) for chunk in read_chunks(path))


def write_compressed(path: Path, data: bytes) -> None:
    """Write a small file, compressed as the end of its name says."""
    if path.name.endswith(".zst"):
        data = zstandard.ZstdCompressor(write_checksum=True).compress(data)
    elif path.name.endswith(".gz"):
        data = gzip.compress(data)
    path.write_bytes(data)


def damaged(path: Path, reason: str) -> InputError:
    """Return the error that a file is not whole."""
    kind = path.name.rpartition(".")[2]
    return InputError(f"{path} must be a complete {kind} file, but {reason}; fetch or make it again")
