"""Which source files are read together, and which parts become of them: fixed before any work.

Neighbouring small files form groups, a large one is a group of its own. A group is the work of one worker, and
its documents are divided over its shards. All of that follows from the sizes of the files up to there, in the
order of their names, and never from the machine: files that are added behind the last one leave all groups before
them what they are, byte for byte, but for the last one if it is not full.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from storage.formats.documents import TEST, VAL, shard_prefix
from storage.sources.checked_files import SourceFile

SMALLEST_SHARD, LARGEST_SHARD = 1 << 20, 256 << 20
SHARDS = 64
"""Shards of one file of 64 MiB to 16 GiB. More of them keep more cores busy and lose less by a kill. Each costs
all data stages together 0.15 to 0.2 s of a core, beside 1.2 s of work for a megabyte: the demo's text up to `pack`
took 24, 30 and 55 s of CPU time as 12, 50 and 158 parts (without its tokenizer, two busy cores, 2026-11-28)."""
GROUP_BYTES = 8 << 20
"""Small files form groups of this size at least: each group has parts of its own for the held-out documents."""


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
    splits: dict[str, list[SourceFile]], shard_bytes: int | None, *, hold_out: Sequence[str] = ()
) -> list[Group]:
    """Divide the measured files of each split into groups and number their parts.

    `shard_bytes` is the size of a shard, None for one that grows with the corpus. `hold_out` names the splits that
    are taken out of `train` by the hash of the text.
    """
    groups = []
    for split, files in splits.items():
        shards = 0
        for index, (members, target) in enumerate(_groups(files, shard_bytes)):
            count = max(1, round(sum(file.text_bytes for file in members) / target))
            names = tuple(f"{shard_prefix(split)}{number:05d}" for number in range(shards, shards + count))
            val, test = (f"{name}-{index:05d}" if name in hold_out else "" for name in (VAL, TEST))
            groups.append(Group(members, names, val, test))
            shards += count
    return groups


def automatic_shard_bytes(passed: int) -> int:
    """Return the size of a shard that ends with the `passed`-th byte of the corpus, or in its file.

    A 64th of what there is up to there: the first file decides by its own size, and a corpus of very many files
    still has shards of a size that grows with it, not some tens for each file.
    """
    return min(max(passed // SHARDS, SMALLEST_SHARD), LARGEST_SHARD)


def _groups(files: Sequence[SourceFile], shard_bytes: int | None) -> Iterator[tuple[tuple[SourceFile, ...], int]]:
    """Yield neighbouring files, and the size of their shards."""
    small: list[SourceFile] = []
    passed = held = 0
    for file in files:
        if small and file.text_bytes >= _full_group(passed + file.text_bytes, shard_bytes):
            yield tuple(small), shard_bytes or automatic_shard_bytes(passed)
            small, held = [], 0
        small.append(file)
        passed += file.text_bytes
        held += file.text_bytes
        if held >= _full_group(passed, shard_bytes):
            yield tuple(small), shard_bytes or automatic_shard_bytes(passed)
            small, held = [], 0
    if small:
        yield tuple(small), shard_bytes or automatic_shard_bytes(passed)


def _full_group(passed: int, shard_bytes: int | None) -> int:
    return shard_bytes or max(automatic_shard_bytes(passed), GROUP_BYTES)
