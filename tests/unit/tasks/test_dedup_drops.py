"""Every document that goes has a row that says why; other programs read them."""

import json
from collections import Counter
from pathlib import Path

import duckdb
import pytest

from tasks.core.context import TABLES
from tasks.dedup.config import DedupConfig
from tests.unit.tasks.deduping import (
    dropped,
    jaccard,
    kept_ids,
    make_filtered,
    run_dedup,
    some_shards,
)


def test_drop_files_say_of_every_document_why_it_went(tmp_path: Path) -> None:
    parts = some_shards(19)
    corpus = make_filtered(tmp_path, parts)

    artifact = run_dedup(corpus)

    rows = dropped(artifact)
    kept = {id for ids in kept_ids(artifact).values() for id in ids}
    texts = {f"{part}:{line}": text for part, pairs in parts.items() for line, (_, text) in enumerate(pairs)}
    assert {row.id for row in rows} | kept == set(texts)
    assert not {row.id for row in rows} & kept
    for row in rows:
        assert row.twin_id in kept
        assert row.twin_id == f"{row.twin_part}:{row.twin_index}"
        assert row.value == pytest.approx(jaccard(texts[row.id], texts[row.twin_id]), abs=1e-6)
        assert row.bound == (0.5 if row.rule == "near" else None)
    found = Counter(f"dropped.{row.subset}.{row.reason}" for row in rows)
    assert found == {name: n for name, n in artifact.counts.items() if name.startswith("dropped.")}


def test_nothing_of_the_work_is_left_behind(tmp_path: Path) -> None:
    artifact = run_dedup(make_filtered(tmp_path, some_shards(20)), DedupConfig(min_containment=0.8))

    folder = tmp_path / "artifacts" / "dedup" / artifact.manifest.key
    assert {path.name for path in (folder / "parts").iterdir()} == {
        f"{file.part}.json" for file in artifact.manifest.files
    }
    named = {Path(file.path).name for file in artifact.manifest.files}
    assert {path.name for path in (folder / "data").iterdir()} == named


def test_duckdb_counts_drops_and_twins_as_the_report_does(tmp_path: Path) -> None:
    parts = some_shards(22)
    artifact = run_dedup(make_filtered(tmp_path, parts))
    files = str(tmp_path / "artifacts" / "dedup" / artifact.manifest.key / "data" / "*drops*.parquet")

    by_reason = "SELECT reason, count(*) FROM read_parquet(?) GROUP BY ALL"
    by_twin = "SELECT count(*) AS n FROM read_parquet(?) GROUP BY twin_id ORDER BY n DESC LIMIT 20"
    beyond = "SELECT count(*) FROM read_parquet(?) WHERE value < bound"
    reasons, twins = (duckdb.execute(query, [files]).fetchall() for query in (by_reason, by_twin))

    tables = json.loads(artifact.report(TABLES) or b"")
    said = tables["Duplicates"][-1]["dropped by reason"]
    assert {f"{reason} {count}" for reason, count in reasons} == set(said.split(", "))
    groups = [row["documents dropped for it"] for row in tables["Largest groups of duplicates"]]
    assert groups == [count for (count,) in twins]
    assert duckdb.execute(beyond, [files]).fetchone() == (0,)
