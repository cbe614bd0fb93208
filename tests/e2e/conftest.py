"""A small demo run through the real command line, once for all tests."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SMALL = {
    "download.source.text_bytes": 1_500_000,
    "download.shard_bytes": 400_000,
    "download.source.val_fraction": 0.05,
    "download.source.test_fraction": 0.1,
    "train_tokenizer.vocab_size": 1024,
    "pack.sequence_length": 64,
    "train.max_steps": 12,
    "train.warmup_steps": 2,
    "train.checkpoint_every": 4,
    "train.eval_every": 6,
    "train.log_every": 1,
    "evaluate.sample_tokens": 16,
}
"""The demo, cut down until the whole chain takes seconds."""

Pile = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Settings that keep Prefect's database away from the user's own."""
    home = tmp_path_factory.mktemp("prefect")
    return {**os.environ, "PREFECT_HOME": str(home), "PREFECT_API_URL": "http://127.0.0.1:9/none"}


@pytest.fixture(scope="session")
def pile(environment: dict[str, str]) -> Pile:
    """Call `pile` with the small settings: `pile("run", store, more, arguments)`."""

    def call(verb: str, store: Path, *arguments: str, **fields: Any) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "flows.command", verb, "--store", str(store)]
        if verb in ("run", "plan"):
            settings = {**SMALL, **{name.replace("__", "."): value for name, value in fields.items()}}
            command += ["demo", *(f"--set={field}={json.dumps(value)}" for field, value in settings.items())]
        return subprocess.run(
            [*command, *arguments], env=environment, capture_output=True, text=True, timeout=560, check=False
        )

    return call


@pytest.fixture(scope="session")
def demo_store(pile: Pile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which the small demo is finished. Tests that change it work on a copy."""
    store = tmp_path_factory.mktemp("demo") / "store"
    done = pile("run", store)
    assert done.returncode == 0, done.stderr
    return store
