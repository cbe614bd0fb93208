"""How quantities read, in every room."""

import re
from pathlib import Path

import pytest

import storage
from storage.wording import counted, duration, minute, progress_text, size

ROOMS = Path(storage.__file__).parents[1]


@pytest.mark.parametrize(
    ("count", "noun", "said"),
    [(0, "files", "0 files"), (1, "damaged files", "1 damaged file"), (2000, "files", "2,000 files")],
)
def test_counted_agrees_in_number(count: int, noun: str, said: str) -> None:
    assert counted(count, noun) == said


@pytest.mark.parametrize(
    ("count", "said"), [(999, "999 B"), (1000, "1.0 kB"), (2.5e9, "2.5 GB"), (7e15, "7000.0 TB")]
)
def test_size_is_in_powers_of_ten(count: float, said: str) -> None:
    assert size(count) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (119.4, "119 s"), (120, "2.0 min"), (185.4, "3.1 min"),
     (600, "10 min"), (7199, "120 min"), (7200, "2.0 h"), (100_000, "28 h"), (172_800, "2.0 days"),
     (2_000_000, "23 days")],
)  # fmt: skip
def test_a_time_is_short_and_names_its_unit(seconds: float, said: str) -> None:
    assert duration(seconds) == said
    assert len(said) <= len("2.0 days")


@pytest.mark.parametrize(
    ("done", "total", "unit", "said"),
    [
        (120, 4000, "steps", "120 of 4,000 steps"),
        (2_500_000, 40_000_000, "bytes", "2.5 MB of 40.0 MB"),
        (5, 9, "bytes of the sample", "5 B of 9 B of the sample"),
        (0, 0, "", ""),
    ],
)
def test_progress_is_what_is_done_of_the_whole(done: int, total: int, unit: str, said: str) -> None:
    assert progress_text(done, total, unit) == said


def test_progress_and_durations_are_worded_in_one_place() -> None:
    own = re.compile(r"done\b[^{}]*\} of \{[^{}]*total|\bdef _?duration\b")
    files = [path for room in ("flows", "tasks", "model", "storage") for path in (ROOMS / room).rglob("*.py")]
    assert [path.name for path in files if own.search(path.read_text())] == ["wording.py"]


def test_a_time_is_told_to_the_minute() -> None:
    assert minute("2026-11-28T09:30:59.123+00:00") == "2026-11-28 09:30"
