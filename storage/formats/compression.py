"""Compressed files as pieces of bytes: zstd, gzip, bzip2 and xz, with all frames, members or streams of a file.

The libraries' own file objects end quietly inside a zstd frame, or leave out what stands behind the first stream.
"""

import bz2
import lzma
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import zstandard

PIECE_BYTES = 1 << 20
ZSTD_WINDOW_BYTES = 128 << 20
"""What zstd itself accepts unless it is told otherwise; more is needed for `zstd --long=28` to `--long=31`."""

ZSTD_HEADER_BYTES = 18
XZ_BYTES = 64 << 20
"""What xz needs beside its dictionary, with some to spare."""


class StreamError(ValueError):
    """A compressed file that cannot be unpacked to its end; says why and near which of its bytes."""


class WindowError(ValueError):
    """An intact file whose unpacking needs more memory than is allowed."""


class Unpacker(ABC):
    """One frame, member or stream."""

    padding: ClassVar[bytes] = b""
    """What may stand between streams and behind the last one."""
    errors: ClassVar[tuple[type[Exception], ...]]
    """What its library raises for damaged bytes."""
    eof = False
    """The stream is complete."""
    rest = b""
    """What was given beyond the end of the stream."""

    def __init__(self, max_window: int) -> None:
        self.max_window = max_window

    @abstractmethod
    def unpack(self, data: bytes, piece_bytes: int) -> Iterator[bytes]:
        """Yield what comes of more bytes of the file. Raises: WindowError and what `errors` names."""


class ZstdUnpacker(Unpacker):
    """A zstd frame. Its pieces may be larger than asked for: 128 KiB from 4 bytes."""

    errors = (zstandard.ZstdError,)

    def __init__(self, max_window: int) -> None:
        super().__init__(max_window)
        self._header = b""
        self._stream = zstandard.ZstdDecompressor(max_window_size=max_window).decompressobj()

    def unpack(self, data: bytes, piece_bytes: int) -> Iterator[bytes]:
        """Yield pieces."""
        if len(self._header) < ZSTD_HEADER_BYTES:
            self._header += data[: ZSTD_HEADER_BYTES - len(self._header)]
        try:
            piece = self._stream.decompress(data)
        except zstandard.ZstdError:
            self._check_window()
            raise
        for start in range(0, len(piece), piece_bytes):
            yield piece[start : start + piece_bytes]
        self.eof, self.rest = self._stream.eof, self._stream.unused_data

    def _check_window(self) -> None:
        try:
            needed = zstandard.get_frame_parameters(self._header).window_size
        except zstandard.ZstdError:
            return  # the header itself is wrong
        if needed > self.max_window:
            raise WindowError(
                f"needs a window of {_mebibytes(needed)} MiB to be unpacked, the limit is "
                f"{_mebibytes(self.max_window)} MiB"
            )


class GzipUnpacker(Unpacker):
    """A gzip member."""

    padding = b"\0"
    errors = (zlib.error,)

    def __init__(self, max_window: int) -> None:
        super().__init__(max_window)
        self._stream = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)

    def unpack(self, data: bytes, piece_bytes: int) -> Iterator[bytes]:
        """Yield pieces."""
        while True:
            piece = self._stream.decompress(data, piece_bytes)
            data = self._stream.unconsumed_tail
            if piece:
                yield piece
            if len(piece) < piece_bytes and not data:
                break
        self.eof, self.rest = self._stream.eof, self._stream.unused_data


class Bzip2Unpacker(Unpacker):
    """A bzip2 stream."""

    errors: ClassVar[tuple[type[Exception], ...]] = (OSError, ValueError)

    def __init__(self, max_window: int) -> None:
        super().__init__(max_window)
        self._stream: bz2.BZ2Decompressor | lzma.LZMADecompressor = bz2.BZ2Decompressor()

    def unpack(self, data: bytes, piece_bytes: int) -> Iterator[bytes]:
        """Yield pieces."""
        stream = self._stream
        if piece := stream.decompress(data, piece_bytes):
            yield piece
        while not stream.eof and not stream.needs_input:
            if piece := stream.decompress(b"", piece_bytes):
                yield piece
        self.eof, self.rest = stream.eof, stream.unused_data


class XzUnpacker(Bzip2Unpacker):
    """A stream of xz, which is unpacked in the same way."""

    padding = b"\0"
    errors = (lzma.LZMAError,)

    def __init__(self, max_window: int) -> None:
        super().__init__(max_window)
        self._stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=max_window + XZ_BYTES)

    def unpack(self, data: bytes, piece_bytes: int) -> Iterator[bytes]:
        """Yield pieces."""
        try:
            yield from super().unpack(data, piece_bytes)
        except lzma.LZMAError as error:
            if "limit" in str(error):
                raise WindowError(
                    f"needs a larger dictionary to be unpacked than the limit of {_mebibytes(self.max_window)} MiB"
                ) from error
            raise


UNPACKERS: dict[str, type[Unpacker]] = {
    ".zst": ZstdUnpacker,
    ".gz": GzipUnpacker,
    ".bz2": Bzip2Unpacker,
    ".xz": XzUnpacker,
}
"""By the end of a file's name."""


def unpacked(
    path: Path,
    kind: type[Unpacker],
    *,
    max_window: int = ZSTD_WINDOW_BYTES,
    read_bytes: int = PIECE_BYTES,
    piece_bytes: int = PIECE_BYTES,
) -> Iterator[bytes]:
    """Yield the unpacked bytes of all streams of a file, read `read_bytes` at a time.

    Raises: StreamError if it is empty, damaged, cut short or has something else behind its last stream;
    WindowError; OSError from the disk.
    """
    stream: Unpacker | None = None
    begin = 0
    with path.open("rb") as file:
        while data := file.read(read_bytes):
            end = file.tell()
            while data:
                if stream is None:
                    if begin:
                        data = data.lstrip(kind.padding) if kind.padding else data
                    if not data:
                        break
                    begin, stream = end - len(data), kind(max_window)
                try:
                    yield from stream.unpack(data, piece_bytes)
                except WindowError:
                    raise
                except kind.errors as error:
                    raise StreamError(
                        f"byte {end - len(data)} or one of the {len(data)} from there is wrong, in the compressed "
                        f"stream that begins at byte {begin} ({error})"
                    ) from error
                data = stream.rest
                if stream.eof:
                    begin, stream = end - len(data), None
    if stream is not None:
        raise StreamError(
            f"the file ends inside the compressed stream that begins at byte {begin}: it is cut short"
        )
    if begin == 0:
        raise StreamError("it is empty")


def _mebibytes(size: int) -> str:
    return f"{size / (1 << 20):.10g}"
