"""Write documents of source files into shards of even size, in parallel, each shard once.

The plan is fixed before any work: neighbouring source files form groups of about one shard or, where a file
is larger, of several; a document belongs to the shard at its position in the group. So the result does not
depend on the number of workers, and a shard that is committed is never written again.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from storage.artifacts.writer import ArtifactWriter
from storage.errors import InputError
from storage.formats.documents import DOCUMENTS, TEST, TRAIN, VAL, Document, DocumentWriter, shard_prefix
from storage.sources.base import Source
from storage.sources.checked_files import SourceFile
from storage.sources.readers.base import BadLine
from storage.sources.readers.registry import reader_for
from tasks.download.files import fetched_again

BAD_LINES = "bad_lines"
"""Count of a part, and name of its entry in `info`: lines that hold no document."""


@dataclass(frozen=True)
class Group:
    """Source files that one worker reads in order, and the parts that it writes from them."""

    sources: tuple[SourceFile, ...]
    shards: tuple[str, ...]
    """Parts by position: shard i of n takes what begins in the i-th n-th of the uncompressed bytes."""
    val: str = ""
    test: str = ""
    """Parts for held-out documents, '' where the sources come with splits of their own."""
    finished: frozenset[str] = frozenset()

    @property
    def parts(self) -> tuple[str, ...]:
        """All parts of the group, in the order in which they are committed."""
        return tuple(part for part in (*self.shards, self.val, self.test) if part)

    @property
    def name(self) -> str:
        """What messages call the group: its parts, which may be thousands."""
        first, last = self.parts[0], self.parts[-1]
        return first if first == last else f"{first} to {last}"


def plan_groups(
    splits: dict[str, list[SourceFile]], shard_bytes: int, *, hold_out: Sequence[str] = ()
) -> list[Group]:
    """Divide the measured files of each split into groups and number their parts.

    `hold_out` names the splits that are taken out of `train` by the hash of the text.
    """
    groups = []
    for split, files in splits.items():
        shards = 0
        for index, members in enumerate(_even_groups(files, shard_bytes)):
            count = max(1, round(sum(file.text_bytes for file in members) / shard_bytes))
            names = tuple(f"{shard_prefix(split)}{number:05d}" for number in range(shards, shards + count))
            val, test = (f"{name}-{index:05d}" if name in hold_out else "" for name in (VAL, TEST))
            groups.append(Group(tuple(members), names, val, test))
            shards += count
    return groups


def _even_groups(files: list[SourceFile], shard_bytes: int) -> list[list[SourceFile]]:
    """Cut the row of files into groups of about a shard: a file goes where its middle lies."""
    total = sum(file.text_bytes for file in files)
    slots = max(1, round(total / shard_bytes))
    groups: dict[int, list[SourceFile]] = {}
    begin = 0
    for file in files:
        middle = begin + file.text_bytes // 2
        groups.setdefault(min(slots - 1, middle * slots // max(1, total)), []).append(file)
        begin += file.text_bytes
    return list(groups.values())


@dataclass(frozen=True)
class WriteShards:
    """Writes the parts of a group that are not finished. Runs in worker processes."""

    writer: ArtifactWriter
    source: Source[Any]
    max_bad_lines: int

    def __call__(self, group: Group) -> None:
        """Read the group from its beginning to its end and commit each shard when it is passed.

        Files that are not on this machine are brought from the source first. Raises: InputError for damaged
        files and for more than `max_bad_lines` bad lines, Fault if a file changed meanwhile, OSError.
        """
        folder = self.writer.shared_scratch() / f"source-{group.parts[0]}"
        group = replace(group, sources=tuple(fetched_again(file, self.source, folder) for file in group.sources))
        unfinished = {part: _Shard(self.writer, part) for part in group.parts if part not in group.finished}
        read_all = group.val in unfinished or group.test in unfinished
        bad_lines: list[BadLine] = []
        passed = 0
        for index, item in self._items(group, lambda index: read_all or group.shards[index] in unfinished):
            for part in group.shards[passed:index]:
                self._commit(group, unfinished, part)
            passed = index
            shard = group.shards[index]
            part = self._part_of(item, group, shard) if isinstance(item, Document) else shard
            if part in unfinished:
                unfinished[part].add(item)
                if isinstance(item, BadLine):
                    bad_lines.append(item)
            if len(bad_lines) > self.max_bad_lines:
                raise too_many_bad_lines(bad_lines[0], len(bad_lines), self.max_bad_lines, self.source.origin)
        for part in group.parts:
            self._commit(group, unfinished, part)

    def _items(self, group: Group, is_wanted: Callable[[int], bool]) -> Iterator[tuple[int, Document | BadLine]]:
        """Yield what stands in the wanted shards of the group, with the index of the shard."""
        total = max(1, sum(file.text_bytes for file in group.sources))
        begin = 0
        for file in group.sources:
            index_of = partial(_shard_index, begin, total, len(group.shards))

            def wanted(offset: int, index_of: Callable[[int], int] = index_of) -> bool:
                return is_wanted(index_of(offset))

            reader = reader_for(file.name)
            for offset, item in reader.read(file.path, file.name, self.source.columns, wanted):
                yield index_of(offset), item
            begin += file.text_bytes

    def _part_of(self, document: Document, group: Group, shard: str) -> str:
        if not _is_empty(document) and (group.val or group.test):
            shares = self.source.hold_out()
            split = split_by_hash(document.text, shares.get(VAL, 0.0), shares.get(TEST, 0.0))
            return {VAL: group.val, TEST: group.test}.get(split) or shard
        return shard

    def _commit(self, group: Group, unfinished: dict[str, "_Shard"], part: str) -> None:
        if part in unfinished:
            for file in group.sources:
                file.check_unchanged()
            unfinished.pop(part).commit()


def split_by_hash(text: str, val_fraction: float, test_fraction: float) -> str:
    """Return the split of a text by the first 32 bits of its SHA-256, so that equal texts stay together."""
    position = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") / 2**32
    if position < test_fraction:
        return TEST
    return VAL if position < test_fraction + val_fraction else TRAIN


def too_many_bad_lines(first: BadLine, found: int, allowed: int, origin: str = "") -> InputError:
    """Return the error that names the first bad line, and its file below `origin`."""
    path = f"{origin}/{first.file}" if origin else first.file
    return InputError(
        f"{path} must hold a document in line {first.line} (byte {first.offset}), found {first.reason}; "
        f"sources may have {allowed} bad lines, there are {found} or more: correct the file, or raise "
        f"download.max_bad_lines to leave such lines out"
    )


def _shard_index(begin: int, total: int, shards: int, offset: int) -> int:
    # An empty text at the very end begins where the last shard ends.
    return min(begin + offset, total - 1) * shards // total


def _is_empty(document: Document) -> bool:
    return not document.text or document.text.isspace()


class _Shard:
    """One part that is being written."""

    def __init__(self, writer: ArtifactWriter, part: str) -> None:
        self.writer = writer
        self.part = part
        self.path: Path = writer.scratch() / f"{part}.jsonl.zst"
        self.counts: Counter[str] = Counter()
        self.bad_lines: list[BadLine] = []
        self._documents: DocumentWriter | None = None

    def add(self, item: Document | BadLine) -> None:
        """Write a document; count it as dropped if it holds nothing; note a bad line."""
        if isinstance(item, BadLine):
            self.bad_lines.append(item)
            return
        if _is_empty(item):
            self.counts[f"dropped.{item.subset}.empty"] += 1
            return
        if self._documents is None:
            self._documents = DocumentWriter(self.path)
        self.counts.update(item.notes)
        before = self._documents.text_bytes
        self._documents.write(item)
        self.counts[f"documents.{item.subset}"] += 1
        self.counts[f"text_bytes.{item.subset}"] += self._documents.text_bytes - before

    def commit(self) -> None:
        """Store the part. One without documents has no file, only a record that its work is done."""
        files = {}
        if self._documents is not None:
            with self._documents:
                files[DOCUMENTS] = self.path
            self.counts.update(self._documents.counts())
        info = {}
        if self.bad_lines:
            self.counts[BAD_LINES] = len(self.bad_lines)
            info[BAD_LINES] = [asdict(line) for line in self.bad_lines]
        self.writer.commit(self.part, files, counts=self.counts, info=info)
