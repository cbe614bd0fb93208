"""Without the compiler filter and dedup write the same bytes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from random import Random

from tests.unit.tasks.deduping import edited, random_text

ROOT = Path(__file__).parents[3]

PROGRAM = """
import json, sys
from pathlib import Path
from tasks.core.compiling import mixed
from tasks.core.execution import Execution
from tasks.core.runner import run_stage
from tasks.core.stage import RunContext
from tasks.dedup.config import DedupConfig
from tasks.dedup.stage import STAGE as DEDUP
from tasks.filter.config import FilterConfig
from tasks.filter.stage import STAGE as FILTER
from tests.unit.tasks.filtering import make_corpus

parts = json.load(sys.stdin)
corpus = make_corpus(Path(sys.argv[1]), parts)
context = RunContext(corpus.store, "run", {}, Execution(workers=1))
filtered = run_stage(FILTER, FilterConfig(), {"corpus": corpus}, context).artifact
config = DedupConfig(min_containment=0.8, num_buckets=6, hashes_per_bucket=2)
unique = run_stage(DEDUP, config, {"corpus": filtered}, context).artifact
reasons = {name: count for name, count in unique.counts.items() if name.startswith("dropped.")}
print(json.dumps([hasattr(mixed, "signatures"), filtered.content_digest, unique.content_digest, reasons]))
"""


def outcome(folder: Path, parts: dict[str, list[tuple[str, str]]], **environment: str) -> list[object]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder)],
        input=json.dumps(parts),
        env={**os.environ, **environment, "PYTHONPATH": str(ROOT), "PILE_SCRATCH": str(folder / "scratch")},
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    found: list[object] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_uncompiled_loops_write_the_same_bytes(tmp_path: Path) -> None:
    random = Random(1)
    texts = [random_text(random, 60) for _ in range(6)]
    near, whole = edited(random, texts[0], 0.05), f"{random_text(random, 150)} {texts[1]}"
    train = [*texts[:4], near, texts[2], whole, f"{texts[4]} {random_text(random, 100)}", "Ωμέγα 書かガ ３٣"]
    parts = {"train-00000": [("S", text) for text in train], "val-00000": [("S", texts[4])]}

    compiled = outcome(tmp_path / "compiled", parts)
    uncompiled = outcome(tmp_path / "uncompiled", parts, NUMBA_DISABLE_JIT="1")

    assert (compiled[0], uncompiled[0]) == (True, False)
    assert compiled[1:] == uncompiled[1:]
    reasons = {name.rpartition(".")[2] for name in compiled[3]}  # type: ignore[attr-defined]
    assert reasons == {"exact-duplicate", "near-duplicate", "contained", "holds-held-out-text"}
