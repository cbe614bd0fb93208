"""A small mirror to download from, and a client that does not wait."""

from pathlib import Path

import pytest
import zstandard

import storage.sources.http.client
from tests.unit.tasks.downloads import json_lines, list_checksums


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    """A mirror on this machine: train in four files, val and test, and a file that is no text."""
    folder = tmp_path / "mirror"
    (folder / "train").mkdir(parents=True)
    compress = zstandard.ZstdCompressor(write_checksum=True).compress
    for number in range(4):
        texts = [f"Text {n} of file {number}. " * (n % 7 + 1) for n in range(300)]
        (folder / "train" / f"{number:02d}.jsonl.zst").write_bytes(
            compress(json_lines(texts, f"Set {number % 2}"))
        )
    (folder / "val.jsonl.zst").write_bytes(compress(json_lines(["val one", ""], "Set 0")))
    (folder / "test.jsonl.zst").write_bytes(compress(json_lines(["test one"], "Set 1")))
    (folder / "provenance.tsv.zst").write_bytes(compress(b"more"))
    list_checksums(folder)
    return folder


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the HTTP client try again at once."""
    monkeypatch.setattr(storage.sources.http.client, "FIRST_WAIT_SECONDS", 0.01)
