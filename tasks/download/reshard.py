"""Write documents of source files into shards of even size, in parallel, each shard once.

A document belongs to the shard at its position in its group of source files. So the result does not depend on the
number of workers, and a shard that is committed is never written again.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from storage.artifacts.writer import ArtifactWriter
from storage.formats.documents import DOCUMENTS, TEST, TRAIN, VAL, Document, DocumentWriter
from storage.sources.base import Source
from storage.sources.readers.base import BadLine
from storage.sources.readers.registry import reader_for
from tasks.download.files import fetched_again
from tasks.download.plan import Group
from tasks.download.quarantine import BAD_LINES, QUARANTINE, QuarantineWriter


@dataclass(frozen=True)
class WriteShards:
    """Writes the parts of a group that are not finished. Runs in worker processes."""

    writer: ArtifactWriter
    source: Source[Any]

    def __call__(self, group: Group) -> None:
        """Read the group from its beginning to its end and commit each shard when it is passed.

        Files that are not on this machine are brought from the source first. Raises: InputError for damaged
        files, Fault if a file changed meanwhile, OSError.
        """
        folder = self.writer.shared_scratch() / f"source-{group.parts[0]}"
        group = replace(group, sources=tuple(fetched_again(file, self.source, folder) for file in group.sources))
        unfinished = {part: _Shard(self.writer, part) for part in group.parts if part not in group.finished}
        read_all = group.val in unfinished or group.test in unfinished
        passed = 0
        for index, item in self._items(group, lambda index: read_all or group.shards[index] in unfinished):
            for part in group.shards[passed:index]:
                self._commit(group, unfinished, part)
            passed = index
            shard = group.shards[index]
            part = self._part_of(item, group, shard) if isinstance(item, Document) else shard
            if part in unfinished:
                unfinished[part].add(item)
        for part in group.parts:
            self._commit(group, unfinished, part)

    def _items(self, group: Group, is_wanted: Callable[[int], bool]) -> Iterator[tuple[int, Document | BadLine]]:
        """Yield what stands in the wanted shards of the group, with the index of the shard."""
        total = max(1, sum(file.text_bytes for file in group.sources))
        begin = 0
        for file in group.sources:
            index_of = partial(_shard_index, begin, total, len(group.shards))

            def wanted(offset: int, index_of: Callable[[int], int] = index_of, end: int = file.text_bytes) -> bool:
                return offset <= end and is_wanted(index_of(offset))  # a sample may end in the middle of a file

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
        self._documents: DocumentWriter | None = None
        self._quarantine: QuarantineWriter | None = None

    def add(self, item: Document | BadLine) -> None:
        """Write a document; count it as dropped if it holds nothing; set a bad record aside."""
        if isinstance(item, BadLine):
            if self._quarantine is None:
                self._quarantine = QuarantineWriter(self.path.with_name(f"{self.part}-{QUARANTINE}.jsonl.zst"))
            self._quarantine.write(item)
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
        """Store the part. One without documents has no file of them, only a record that its work is done."""
        files = {}
        if self._documents is not None:
            with self._documents:
                files[DOCUMENTS] = self.path
            self.counts.update(self._documents.counts())
        if self._quarantine is not None:
            with self._quarantine:
                files[QUARANTINE] = self._quarantine.path
            self.counts[BAD_LINES] = self._quarantine.lines
        self.writer.commit(self.part, files, counts=self.counts)
