import json
from pathlib import Path
from typing import Any

import pytest

from storage.artifacts.store import Artifact
from tasks.download.splits import FEWEST_DOCUMENTS, LEAST_BYTES, small_splits
from tests.unit.tasks.downloads import download, json_lines


def too_small(artifact: Artifact) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(artifact.report("tables.json") or b"").get("Too small to judge by", [])
    return rows


def test_advised_share_makes_the_splits_large_enough(tmp_path: Path) -> None:
    texts = [f"{number} " + "word " * 200 for number in range(2000)]
    (tmp_path / "a.jsonl").write_bytes(json_lines(texts, "A"))
    patterns = (str(tmp_path / "a.jsonl"),)
    small = too_small(download(tmp_path / "store", patterns=patterns, test_fraction=0.0))
    assert [row["split"] for row in small] == ["val", "test"]
    assert small[1]["documents"] == 0
    shares = {}
    for row in small:
        field, share = row["what to do"].removeprefix("set download.source.").split("=")
        shares[field] = float(share)
    assert too_small(download(tmp_path / "store", patterns=patterns, **shares)) == []


def test_tiny_corpus_is_told_to_grow_and_a_source_with_splits_to_bring_more(
    tmp_path: Path, mirror: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.txt").write_text("one")
    small = too_small(download(tmp_path / "store", patterns=(str(tmp_path / "a.txt"),)))
    assert "should hold 20 documents and 50.0 kB of text at least, not 0 documents and 0 B" in caplog.text
    assert [(row["split"], row["documents"]) for row in small] == [("val", 0), ("test", 0)]
    assert all(row["what to do"].startswith("add text, or set") for row in small)
    brought = too_small(download(tmp_path / "store", url=str(mirror)))
    assert [(row["split"], row["what to do"]) for row in brought] == [
        ("val", "give the source more text for val"),
        ("test", "give the source more text for test"),
    ]


@pytest.mark.parametrize(
    ("documents", "text_bytes", "small"),
    [
        (FEWEST_DOCUMENTS, LEAST_BYTES, False),
        (FEWEST_DOCUMENTS - 1, LEAST_BYTES, True),
        (FEWEST_DOCUMENTS, LEAST_BYTES - 1, True),
    ],
)
def test_floor_counts_documents_and_bytes(documents: int, text_bytes: int, small: bool) -> None:
    train = {"documents": 10**6, "text_bytes": 10**9}
    held_out = {"documents": documents, "text_bytes": text_bytes}
    rows = small_splits({"train": train, "val": held_out, "test": train}, {"val": 0.01})
    assert [row["split"] for row in rows] == ["val"] * small
