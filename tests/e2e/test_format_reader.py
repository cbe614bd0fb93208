"""A reader that knows only docs/format.md, and imports nothing of the project, agrees with a finished store."""

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from storage.artifacts.store import Store

pytestmark = pytest.mark.e2e

READER = Path(__file__).with_name("format_reader.py")


def read(store: Path) -> dict[str, Any]:
    """Run the reader where it cannot import the project."""
    done = subprocess.run(
        [sys.executable, "-P", str(READER), str(store)],
        cwd="/",
        env={},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    return {**json.loads(done.stdout), "code": done.returncode}


def test_the_reader_imports_nothing_of_the_project() -> None:
    lines = [line for line in READER.read_text().splitlines() if line.startswith(("import ", "from "))]
    packages = {line.split()[1].partition(".")[0] for line in lines}
    ours = {"storage", "model", "tasks", "flows", "pile_pipeline"}
    assert packages
    assert not packages & ours


def test_the_reader_verifies_a_store_and_counts_what_the_manifests_count(demo_store: Path) -> None:
    result = read(demo_store)
    assert (result["problems"], result["code"]) == ([], 0)
    manifests = {manifest.stage: manifest for manifest in Store(str(demo_store)).manifests()}
    assert result["records"]["manifest"] == len(manifests)
    assert result["found"].keys() == manifests.keys()
    for stage, counts in {
        "download": ("documents", "text_bytes"),
        "filter": ("documents", "text_bytes", "dropped"),
        "dedup": ("documents", "text_bytes"),
        "train-tokenizer": ("vocab_size",),
        "tokenize": ("documents", "text_bytes", "tokens"),
        "pack": ("sequences", "sequences.train", "sequences.val", "padding", "tokens", "documents"),
    }.items():
        for count in counts:
            assert result["found"][stage][count] == manifests[stage].counts[count], (stage, count)
    assert result["found"]["filter"]["shingles"] == manifests["filter"].counts["documents"]
    assert result["found"]["train"]["numbers"] == manifests["train"].counts["parameters"]


def test_the_reader_notices_a_flipped_bit_in_any_file(demo_store: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(demo_store, store, ignore=shutil.ignore_patterns("scratch"))
    draw = random.Random(0)
    by_folder: dict[tuple[str, ...], list[Path]] = {}
    for path in sorted(path for path in store.rglob("*") if path.is_file()):
        step = path.relative_to(store).parts
        by_folder.setdefault((step[1], *step[3:4]) if step[0] == "artifacts" else step[:1], []).append(path)
    assert len(by_folder) > 30, "a file of each kind of each stage"
    chosen = [draw.choice(paths) for paths in by_folder.values()]
    flipped = {}
    for path in chosen:
        data = bytearray(path.read_bytes())
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        flipped[path] = bytes(data)
    for path in draw.sample(chosen, 6):
        whole = path.read_bytes()
        path.write_bytes(flipped[path])
        assert read(store)["problems"], f"a flipped bit of {path} was not noticed"
        path.write_bytes(whole)
    assert read(store)["problems"] == []
