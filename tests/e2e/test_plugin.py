"""The example package, installed by pip: one recipe uses its piece of every seam, up to a published model."""

import json
import os
import pydoc_data.topics
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.e2e]

ROOT = Path(__file__).parents[2]
SEAMS = {"source", "reader", "filter rule", "stage", "model family", "training engine", "backend"}

RECIPE: dict[str, Any] = {
    "based_on": "own-files",
    "filter": {"default_policy": "own", "policies": {"own": {"rules": [{"rule": "boilerplate"}]}}},
    "statistics": {"min_documents": 1},
    "train_tokenizer": {"vocab_size": 512},
    "pack": {"sequence_length": 64},
    "train": {"model": "opt-tiny", "max_steps": 6, "warmup_steps": 1, "global_batch_size": 8},
    "evaluate": {"sample_tokens": 8, "max_bytes_per_subset": 4000},
    "publish": {"name": "opt-tiny", "license": "psf-2.0"},
    "execution": {"engine": "float64", "workers": 2, "threads": 1},
}


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment in which the package is installed."""
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site)]
    subprocess.run([*install, str(ROOT / "tests" / "example_plugin")], check=True, cwd=tmp_path)
    path = os.pathsep.join([str(ROOT), str(site)])
    return {**os.environ, "PYTHONPATH": path, "PREFECT_HOME": str(tmp_path / "prefect"), "PREFECT_API_URL": ""}


def write_recipe(folder: Path) -> Path:
    """Write a recipe, and its corpus: the paragraphs of Python's reference, one per line."""
    with zipfile.ZipFile(folder / "corpus.zip", "w") as archive:
        for name, text in pydoc_data.topics.topics.items():
            paragraphs = [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]
            archive.writestr(f"{name}.md", "\n".join(paragraphs))
    source = {"kind": "zip", "archive": str(folder / "corpus.zip"), "val_fraction": 0.1, "test_fraction": 0.1}
    recipe = folder / "plugin.json"
    recipe.write_text(json.dumps({**RECIPE, "download": {"source": source, "shard_bytes": 200_000}}))
    return recipe


def test_recipe_of_the_example_package_runs_through_the_chain(tmp_path: Path, environment: dict[str, str]) -> None:
    def pile(*arguments: str) -> str:
        command = [sys.executable, "-m", "flows.command", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    listed = json.loads(pile("plugins", "--json"))
    assert {row["seam"] for row in listed if row["package"].startswith("example-plugin")} == SEAMS
    asked = (str(write_recipe(tmp_path)), "--store", f"sqlite://{tmp_path}/store.db")
    pile("run", *asked)
    assert (tmp_path / "store.db").is_file()
    plan = {row["stage"]: row["state"] for row in json.loads(pile("plan", *asked, "--json"))["stages"]}
    assert "statistics" in plan
    assert set(plan.values()) == {"cached"}
