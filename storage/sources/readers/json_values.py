"""The values of a JSON array or of a row of objects, one by one in bounded memory: split, not parsed."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from storage.errors import InputError
from storage.sources.readers.base import EXCERPT_BYTES
from storage.sources.readers.lines import MAX_LINE_BYTES

STRUCTURE = re.compile(rb'["\[\]{},]')
STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
"""What may stand before the end of a string; it stops at a backslash that ends a chunk."""

Value = tuple[int, bytes]
"""Offset in the file and bytes of one value; those of a missing one between two commas are empty."""


def split_values(path: Path, chunks: Iterable[bytes], *, in_array: bool) -> Iterator[Value]:
    """Yield the elements of the array that a file holds, or the objects that stand in it one after the other.

    Raises: InputError if it ends inside of them, or holds something beside them, with the position.
    """
    splitter = _Splitter(path, 1 if in_array else 0)
    for chunk in chunks:
        yield from splitter.feed(chunk)
    splitter.check_end()


class _Splitter:
    """Follows brackets and strings through the chunks of a file."""

    def __init__(self, path: Path, level: int) -> None:
        self._path = path
        self._level = level
        """Depth at which the values stand."""
        self._depth = 0
        self._in_string = False
        self._is_escaped = False
        self._is_over = False
        self._offset = 0
        self._pieces: list[bytes] = []
        self._held = 0

    def feed(self, chunk: bytes) -> Iterator[Value]:
        """Yield the values that end in the next chunk."""
        start = at = 0
        while at < len(chunk):
            if self._in_string:
                at = self._pass_string(chunk, at)
                continue
            found = STRUCTURE.search(chunk, at)
            if found is None:
                break
            at = found.end()
            mark = found[0]
            if mark == b'"':
                self._in_string = True
            elif mark in b"[{":
                self._depth += 1
                if self._depth == 1:
                    begin = at if self._level else at - 1
                    self._check_blank(chunk[start : at - 1], self._offset + at - 1)
                    start = begin
            elif mark == b",":
                if self._depth == self._level == 1:
                    yield self._value(chunk[start : at - 1], at - 1)
                    start = at
            else:
                self._depth -= 1
                if self._depth <= 0:
                    end = at - 1 if self._level else at
                    yield self._value(chunk[start:end], end)
                    start = at
                    self._is_over = self._level == 1
        self._hold(chunk[start:])
        self._offset += len(chunk)
        if self._depth == 0:
            self._check_blank(b"", self._offset)

    def check_end(self) -> None:
        """Raise InputError unless all that began has ended."""
        if self._depth > 0 or self._in_string:
            raise InputError(
                f"{self._path} must be complete JSON, but it ends after {self._offset} bytes inside an array or "
                f"an object: it is cut short, or a bracket or quote is missing; fetch or make it again"
            )

    def _pass_string(self, chunk: bytes, at: int) -> int:
        if self._is_escaped:
            self._is_escaped = False
            at += 1
        found = STRING.match(chunk, at)
        at = found.end() if found else at
        if at < len(chunk):
            self._in_string = chunk[at] != 0x22
            self._is_escaped = self._in_string
            at += 1
        return at

    def _hold(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._held += len(piece)
        if self._held > MAX_LINE_BYTES:
            raise InputError(
                f"a value of a JSON file must have at most {MAX_LINE_BYTES} bytes, the one in {self._path} that "
                f"ends behind byte {self._offset} is longer"
            )

    def _value(self, piece: bytes, end: int) -> Value:
        self._hold(piece)
        data = b"".join(self._pieces).rstrip()
        whole = self._held
        self._pieces, self._held = [], 0
        value = data.lstrip()
        return self._offset + end - whole + len(data) - len(value), value

    def _check_blank(self, piece: bytes, end: int) -> None:
        """Look at what stands outside of all values, up to the position `end`."""
        between = b"".join([*self._pieces, piece])
        begin, self._pieces, self._held = end - len(between), [], 0
        stray = between.strip()
        if stray or (self._is_over and self._depth > 0):
            at = begin + len(between) - len(between.lstrip()) if stray else end
            raise InputError(
                f"{self._path} must hold an array of objects, one object, or an object a line, found "
                f"{(stray or b'another value')[:EXCERPT_BYTES]!r:.120} at byte {at}; is it another kind of file, "
                f"or is a bracket missing?"
            )
