"""What is not a document: kept whole, with its place and the reason, beside the shards.

Each part of the result has a file of its bad records while the work goes on, so memory does not depend on their
number. At the end they become one report, which a stage that fails on them leaves behind as well. They are no part
of the result's meaning: no content digest holds them.
"""

import base64
import codecs
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from decimal import ROUND_CEILING, Context, Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import orjson
import zstandard

from storage.artifacts.records import Part
from storage.artifacts.writer import ArtifactWriter
from storage.errors import InputError
from storage.formats.documents import ZSTD_LEVEL, read_zstd_lines
from storage.sources.readers.base import BadLine

QUARANTINE = "quarantine"
"""Role of the file of a part, and beginning of the name of the report."""
REPORT = "quarantine.jsonl"
BAD_LINES = "bad_lines"
"""Count of a part: records that are not documents."""

TABLE_ROWS = 20
MOST_KINDS = 10_000
"""Different rows that are counted: without it a reader whose reasons begin with no kind would fill the memory."""


class QuarantineWriter:
    """Writes the bad records of one part, as JSON lines; a context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines = 0
        self._file = path.open("wb")
        self._stream = zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True).stream_writer(self._file)

    def write(self, line: BadLine) -> None:
        """Append a bad record."""
        self._stream.write(orjson.dumps(as_json(line), option=orjson.OPT_APPEND_NEWLINE))
        self.lines += 1

    def __enter__(self) -> "QuarantineWriter":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._stream.close()  # type: ignore[no-untyped-call] # zstandard's stubs leave it untyped
        finally:
            self._file.close()


def as_json(line: BadLine) -> dict[str, Any]:
    """Return place and reason, and the record as it stood there: `record`, or `record_base64` if it is no UTF-8.

    `record_bytes` is its length; more than `record` holds where that was cut.
    """
    where = {"file": line.file, "line": line.line, "offset": line.offset, "reason": line.reason}
    is_cut = line.record_bytes > len(line.record)
    try:
        # A cut may go through a character, whose beginning is then left out.
        record = {"record": codecs.getincrementaldecoder("utf-8")().decode(line.record, final=not is_cut)}
    except UnicodeDecodeError:
        record = {"record_base64": base64.b64encode(line.record).decode()}
    return {**where, "record_bytes": line.record_bytes, **record}


def without_quarantine(part: Part) -> Part:
    """Return the part with nothing but its documents."""
    return part.model_copy(update={"files": tuple(file for file in part.files if file.role != QUARANTINE)})


class Quarantine:
    """The bad records of all parts."""

    def __init__(self, writer: ArtifactWriter, parts: Sequence[Part]) -> None:
        self._writer = writer
        self._parts = parts
        self.lines = sum(part.counts.get(BAD_LINES, 0) for part in parts)
        self.records = self.lines + sum(
            count
            for part in parts
            for name, count in part.counts.items()
            if name == "documents" or name.startswith("dropped.")
        )
        """All records of the corpus: documents, empty ones and bad ones."""

    def entries(self) -> Iterator[bytes]:
        """Yield the records as JSON lines, in the order of the parts. Raises: CorruptFileError."""
        for part in self._parts:
            for file in part.files:
                if file.role == QUARANTINE:
                    yield from read_zstd_lines(self._writer.open(file))

    def write(self, path: Path) -> None:
        """Write all of them into one file."""
        with path.open("wb") as file:
            file.writelines(entry + b"\n" for entry in self.entries())

    def table(self) -> list[dict[str, Any]]:
        """Return how many there are by file and kind of reason, most first."""
        counts: Counter[tuple[str, str]] = Counter()
        first: dict[tuple[str, str], int] = {}
        for entry in map(orjson.loads, self.entries()):
            kind = (entry["file"], entry["reason"].partition(":")[0])
            if kind not in counts and len(counts) >= MOST_KINDS:
                kind = ("others", "")
            counts[kind] += 1
            first.setdefault(kind, entry["line"])
        # Those that were met first stand first among equals.
        rows: list[dict[str, Any]] = [
            {"file": file, "reason": reason, "bad lines": count, "first line": first[file, reason]}
            for (file, reason), count in counts.most_common(TABLE_ROWS)
        ]
        if rest := counts.total() - sum(row["bad lines"] for row in rows):
            rows.append(
                {"file": f"{len(counts) - len(rows)} more", "reason": "", "bad lines": rest, "first line": ""}
            )
        return rows

    def too_many(self, most_lines: int, most_share: float, origin: str, place: str) -> InputError | None:
        """Return the error that there are more than are allowed, None if not.

        `origin` is what file names are relative to, `place` where all of them can be looked at.
        """
        allowed = allowed_bad_lines(most_lines, most_share, self.records)
        if self.lines <= allowed:
            return None
        first, *others = _first_of_files(map(orjson.loads, self.entries()), origin)
        also = f" (also {'; '.join(others)})" if others else ""
        return InputError(
            f"{first}{also}; of {self.records} records {self.lines} hold none "
            f"({100 * self.lines / self.records:.2g} %), and {allowed} may (the larger of download.max_bad_lines "
            f"{most_lines} and the share download.max_bad_share {most_share:g}): correct the files, or set "
            f"download.max_bad_share={_enough(self.lines, self.records)} to leave such records out; all of them, "
            f"whole, are in {place}"
        )


def allowed_bad_lines(most_lines: int, most_share: float, records: int) -> int:
    """Return how many of that many records may be bad; exact, since 0.1 as a binary number is not a tenth."""
    return max(most_lines, math.floor(Fraction(str(most_share)) * records))


def _first_of_files(entries: Iterable[dict[str, Any]], origin: str) -> list[str]:
    """Describe the first bad record of each of the first files."""
    found: dict[str, str] = {}
    for entry in entries:
        if entry["file"] not in found:
            path = f"{origin}/{entry['file']}" if origin else entry["file"]
            where = f"line {entry['line']} (byte {entry['offset']})"
            found[entry["file"]] = (
                f"{path} {where}: {entry['reason']}"
                if found
                else f"{path} must hold a document in {where}, found {entry['reason']}"
            )
        if len(found) == 3:
            break
    return list(found.values())


def _enough(lines: int, records: int) -> str:
    """Return the next share of two digits that allows them."""
    return f"{Context(prec=2, rounding=ROUND_CEILING).divide(Decimal(lines), Decimal(records)):f}"
