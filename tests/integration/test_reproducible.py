"""A stage built again gives the bytes that it gave before: in one process with the others or in its own.

Every process has another hash seed, so that an order of sets that reaches a file shows; the first one works with
two worker processes, the others without.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flows.stages import STAGES

STAGE_NAMES = STAGES.names()

pytestmark = [pytest.mark.slow]

Run = dict[str, Any]

SMALL = {
    "download.source.text_bytes": 600_000,
    "download.source.val_fraction": 0.05,
    "download.source.test_fraction": 0.1,
    "download.shard_bytes": 200_000,
    "train_tokenizer.vocab_size": 512,
    "pack.sequence_length": 64,
    "train.model": {"family": "rope", "n_layers": 2, "n_heads": 2, "n_kv_heads": 1, "d_model": 32, "d_ff": 48},
    "train.max_steps": 3,
    "train.warmup_steps": 1,
    "train.eval_every": 2,
    "evaluate.sample_tokens": 8,
    "evaluate.max_bytes_per_subset": 2000,
    "execution.threads": 1,
}
"""The demo, cut down until the time goes into starting processes."""

RUN = """
import json, sys
from flows.runs.request import Request, new_run_id
from flows.runs.run_stages import run_stages
from flows.chain import ALL
from tasks.core.runner import run_stage
from tasks.core.stage import RunContext

store, overrides, force = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3:]
request, run_id = Request.checked("demo", overrides, ALL, force, store), new_run_id()
recipe = request.recipe
context = RunContext(request.store, run_id, recipe.model_dump(mode="json"), recipe.execution)

def execute(step, inputs, force, progress):
    return run_stage(step.stage, step.config, inputs, context, force=force, resume=not force)

results = run_stages(request, run_id, execute)
print(json.dumps({
    "digests": {name: result.artifact.content_digest for name, result in results.items()},
    "built": [name for name, result in results.items() if not result.cached],
}))
"""
"""A run without Prefect, whose server would take most of the time: store, settings and forced stages."""


def run(store: Path, *force: str, hash_seed: int, workers: int = 1, **settings: Any) -> Run:
    """Run the chain in a process of its own; return the digest of every stage, and which stages were built."""
    overrides = json.dumps({**SMALL, "execution.workers": workers, **settings})
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(store), overrides, *force],
        env={**os.environ, "PYTHONHASHSEED": str(hash_seed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: Run = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reproducible") / "store"


@pytest.fixture(scope="module")
def first(store: Path) -> Run:
    return run(store, hash_seed=0, workers=2)


@pytest.mark.parametrize("stage", STAGE_NAMES)
def test_stage_forced_in_its_own_process_gives_the_digest_of_the_first_run(
    store: Path, first: Run, stage: str
) -> None:
    again = run(store, stage, hash_seed=1 + STAGE_NAMES.index(stage))  # its inputs are read back from the store
    assert again == {"digests": first["digests"], "built": [stage]}


def test_all_stages_forced_in_one_process_give_the_digests_of_the_first_run(store: Path, first: Run) -> None:
    assert run(store, *STAGE_NAMES, hash_seed=99) == {"digests": first["digests"], "built": list(STAGE_NAMES)}


def test_same_weights_by_other_settings_do_not_change_what_was_published(store: Path, first: Run) -> None:
    other = run(store, "evaluate", "publish", hash_seed=7, **{"train.utility_weight": 0.01})
    changed = {name for name, digest in other["digests"].items() if digest != first["digests"][name]}
    assert other["built"] == ["train", "evaluate", "publish"]
    assert changed == {"publish"}  # whose card tells the settings
    assert run(store, "publish", hash_seed=8) == {"digests": first["digests"], "built": ["publish"]}
