"""Every registered reader keeps every promise, with each of its suffixes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import storage.sources.readers.chunks
from storage.sources.readers.chunks import COMPRESSIONS
from storage.sources.readers.registry import READERS, reader_for
from tests.conformance.reader_checks import CHECKS, Sample
from tests.conformance.reader_damage_checks import DAMAGE_CHECKS

ROOT = Path(__file__).parents[2]
HEAVY = ("pyarrow", "pandas", "torch", "datatrove", "httpx", "lxml")

SUFFIXES = [(name, suffix) for name, reader in READERS.members() for suffix in reader.suffixes]


TRIED = [
    pair
    for number, pair in enumerate(SUFFIXES)
    if not pair[1].endswith(COMPRESSIONS) or number % len(COMPRESSIONS) == len(pair[0]) % len(COMPRESSIONS)
]
"""Every end of a name, and one or two of its compressions, which are no reader's business."""


@pytest.fixture(params=TRIED, ids=lambda pair: f"{pair[0]}{pair[1]}")
def sample(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sample:
    monkeypatch.setattr(storage.sources.readers.chunks, "CHUNK_BYTES", 32 << 10)
    name, suffix = request.param
    return Sample(READERS.get(name), suffix, tmp_path)


@pytest.mark.parametrize("check", CHECKS)
def test_reader(check: str, sample: Sample) -> None:
    CHECKS[check](sample)


@pytest.mark.parametrize("check", DAMAGE_CHECKS)
def test_reader_of_damaged_files(check: str, sample: Sample) -> None:
    DAMAGE_CHECKS[check](sample)


@pytest.mark.parametrize(("name", "suffix"), SUFFIXES)
def test_registry_finds_the_reader_of_each_suffix(name: str, suffix: str) -> None:
    assert reader_for(f"folder/a{suffix}").name == READERS.get(name).name == name


def test_readers_load_nothing_heavy_before_they_read() -> None:
    code = (
        "import sys; from storage.sources.readers.registry import readers_by_suffix; readers_by_suffix(); "
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert done.stdout.decode().strip() == "[]"
