from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import storage.formats.shingles
from storage.errors import CorruptFileError
from storage.formats.shingles import Shingles, ShingleWriter, read_layout, read_shingles


def rows(count: int) -> list[tuple[str, str, bytes, bool, np.ndarray]]:
    chance = np.random.default_rng(1)
    return [
        (
            f"id {number}",
            f"subset {number % 3}",
            number.to_bytes(16, "big"),
            number % 5 > 0,
            np.unique(chance.integers(0, 2**32, number % 40, dtype=np.uint32)),
        )
        for number in range(count)
    ]


def write(path: Path, layout: Shingles, written: list[tuple[str, str, bytes, bool, np.ndarray]]) -> None:
    with ShingleWriter(path, layout) as writer:
        for row in written:
            writer.write(*row)


def test_file_gives_back_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage.formats.shingles, "GROUP", 2000)
    path, layout, written = tmp_path / "file.parquet", Shingles(words=7), rows(500)
    write(path, layout, written)

    groups = list(read_shingles(path))

    assert read_layout(path) == (layout, 500)
    assert len(groups) > 3  # bounded row groups
    found = [
        (exact.tobytes(), near, group.shingles[begin:end])
        for group in groups
        for exact, near, begin, end in zip(group.exact, group.near, group.ends[:-1], group.ends[1:], strict=True)
    ]
    for (exact, near, shingles), (_, _, exact_hash, is_near, expected) in zip(found, written, strict=True):
        assert (exact, near) == (exact_hash, is_near)
        assert np.array_equal(shingles, expected)
    table = pq.read_table(path)  # as any other program reads it
    assert table.column("id").to_pylist() == [row[0] for row in written]
    assert table.column("subset").to_pylist() == [row[1] for row in written]
    assert table.column("shingles").to_pylist() == [row[4].tolist() for row in written]


def test_file_of_no_documents_can_be_read(tmp_path: Path) -> None:
    write(tmp_path / "file.parquet", Shingles(), [])

    assert read_layout(tmp_path / "file.parquet") == (Shingles(), 0)
    assert sum(map(len, read_shingles(tmp_path / "file.parquet"))) == 0


def test_a_thousand_shingles_take_3_bytes_each(tmp_path: Path) -> None:
    chance = np.random.default_rng(2)
    shingles = np.unique(chance.integers(0, 2**32, 1000, dtype=np.uint32))
    write(tmp_path / "file.parquet", Shingles(), [("", "", bytes(16), True, shingles)] * 100)

    assert (tmp_path / "file.parquet").stat().st_size < 3.2 * 100 * len(shingles)


def test_file_that_names_no_layout_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "good.parquet", Shingles(), rows(3))
    table = pq.read_table(tmp_path / "good.parquet")
    pq.write_table(table.replace_schema_metadata({}), tmp_path / "nameless.parquet")
    (tmp_path / "text.parquet").write_text("no Parquet at all")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "good.parquet").read_bytes()[:-20])

    for name in ("nameless.parquet", "text.parquet", "cut.parquet"):
        with pytest.raises(CorruptFileError, match="shingles"):
            read_layout(tmp_path / name)
