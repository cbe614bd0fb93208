from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.sources.checked_files import SourceFile
from tasks.download.plan import Group, plan_groups
from tests.unit.tasks.downloads import contents, download, json_lines

MIB = 1 << 20


def files_of(sizes: list[int]) -> list[SourceFile]:
    return [SourceFile(f"{number:06d}", "", Path("x"), (0, 0), size) for number, size in enumerate(sizes)]


def plan(sizes: list[int], shard_bytes: int | None = None, hold_out: tuple[str, ...] = ()) -> list[Group]:
    return plan_groups({"train": files_of(sizes)}, shard_bytes, hold_out=hold_out)


def size_of(group: Group) -> int:
    return sum(file.text_bytes for file in group.sources)


# A few bytes, about a group, and files of a real corpus, in any order.
file_sizes = st.integers(0, 500) | st.integers(0, 20 * MIB) | st.integers(0, 8 << 30)


@settings(deadline=None)
@given(sizes=st.lists(file_sizes, min_size=1, max_size=30), shard_bytes=st.none() | st.integers(64 * MIB, 1 << 30))
def test_plan_keeps_the_order_of_files_and_numbers_the_parts(sizes: list[int], shard_bytes: int | None) -> None:
    files = files_of(sizes)
    groups = plan_groups({"train": files, "val": files[:1]}, shard_bytes, hold_out=("test",))
    train = [group for group in groups if group.shards[0].startswith("train")]
    assert [file for group in train for file in group.sources] == files
    names = [name for group in train for name in group.shards]
    assert names == [f"train-{number:05d}" for number in range(len(names))]
    assert [group.test for group in train] == [f"test-{number:05d}" for number in range(len(train))]
    [val] = [group for group in groups if group not in train]
    assert val.sources == (files[0],)
    assert val.shards[0] == "val-00000"


@settings(deadline=None)
@given(
    before=st.lists(file_sizes, min_size=1, max_size=30),
    behind=st.lists(file_sizes, max_size=30),
    shard_bytes=st.none() | st.integers(64 * MIB, 1 << 30),
)
def test_files_behind_the_last_one_change_no_group_before_the_last(
    before: list[int], behind: list[int], shard_bytes: int | None
) -> None:
    alone = plan(before, shard_bytes, ("val", "test"))
    together = plan(before + behind, shard_bytes, ("val", "test"))
    assert together[: len(alone) - 1] == alone[:-1]
    last = alone[-1]
    least = shard_bytes or 8 * MIB
    is_full = size_of(last) >= max(least, 0 if shard_bytes else min(sum(before) // 64, 256 * MIB))
    if is_full or (behind and behind[0] >= max(least, 0 if shard_bytes else 256 * MIB)):
        assert together[: len(alone)] == alone


@settings(deadline=None)
@given(sizes=st.lists(file_sizes, min_size=1, max_size=30))
def test_automatic_shards_have_1_to_256_mib_and_are_a_64th_at_most(sizes: list[int]) -> None:
    passed = 0
    for group in plan(sizes):
        passed += size_of(group)
        shard = size_of(group) / len(group.shards)
        # Rounding to whole shards makes one at most half as large again.
        assert shard <= 1.5 * min(max(passed / 64, MIB), 256 * MIB)
        assert len(group.shards) == 1 or shard >= MIB / 1.5


def test_large_corpora_have_bounded_numbers_of_shards_and_small_ones_enough() -> None:
    def shards(sizes: list[int]) -> tuple[int, int]:
        groups = plan(sizes, hold_out=("val", "test"))
        return sum(len(group.shards) for group in groups), len(groups)

    assert shards([20_000_000]) == (19, 1)
    assert shards([155_000_000]) == (64, 1)
    assert shards([155_000] * 1000) == (115, 19)
    assert shards([8 << 30]) == (64, 1)
    assert shards([1 << 40]) == (4096, 1)
    pile, groups = shards([40 << 30] * 30)
    assert 4800 <= pile <= 5100
    assert groups == 30
    web, groups = shards([10 << 20] * 100_000)  # a terabyte in files of 10 MB
    assert 4096 <= web <= 5000
    assert groups <= 5000


def test_files_of_a_stated_shard_are_joined_or_divided() -> None:
    assert [len(group.sources) for group in plan([10] * 20, 100)] == [10, 10]
    assert [len(group.sources) for group in plan([10] * 21, 100)] == [10, 10, 1]
    assert [len(group.shards) for group in plan([10] * 16, 2)] == [5] * 16
    assert [len(group.sources) for group in plan([10, 10, 500, 10], 100)] == [2, 1, 1]


@pytest.mark.parametrize("shard_bytes", [None, 30_000])
def test_shards_keep_their_bytes_when_files_are_added_behind(tmp_path: Path, shard_bytes: int | None) -> None:
    """From the files to the bytes: large and small files, held-out documents, another number of workers."""
    folder = tmp_path / "files"
    folder.mkdir()
    size = shard_bytes or 8 * MIB
    for number, share in enumerate([0.2, 0.2, 1.1, 0.1]):
        line = f"{number} " + "words " * (size // 600)
        (folder / f"{number}.jsonl").write_bytes(json_lines([f"{n} {line}" for n in range(int(100 * share))], "A"))
    config: dict[str, Any] = {
        "patterns": (str(folder),),
        "shard_bytes": shard_bytes,
        "val_fraction": 0.1,
        "test_fraction": 0.1,
    }
    before = contents(download(tmp_path / "store", **config))
    (folder / "8.jsonl").write_bytes(json_lines([f"more {n}" for n in range(200)], "A"))
    after = contents(download(tmp_path / "store", workers=2, **config))
    last = {max(part for part in before if part.startswith(split)) for split in ("train", "val", "test")}
    assert len(before.keys() - last) >= (6 if shard_bytes is None else 3)
    changed = {part for part in before if after.get(part) != before[part]}
    assert changed <= last
    assert after != before
