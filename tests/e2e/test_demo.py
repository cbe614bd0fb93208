"""The whole chain as its user meets it: `pile` commands against a store, through Prefect."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flows.summary import DETAILS, tables
from storage.artifacts.store import Store

pytestmark = [pytest.mark.e2e]

STAGES = ["download", "filter", "dedup", "train-tokenizer", "tokenize", "pack", "train", "evaluate", "publish"]


@pytest.fixture
def copied_store(demo_store: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(demo_store, tmp_path / "store"))


def files_below(folder: Path) -> dict[str, tuple[int, int]]:
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found[str(path.relative_to(folder))] = (path.stat().st_size, path.stat().st_mtime_ns)
    return found


def test_demo_publishes_a_model_that_transformers_loads(demo_store: Path, pile) -> None:
    shown = pile("show", demo_store)
    assert shown.returncode == 0
    for stage in STAGES:
        assert re.search(rf"^{stage} +done", shown.stdout, re.MULTILINE), shown.stdout
    folder = re.search(r"^publish +(/.+)$", shown.stdout, re.MULTILINE)
    assert folder
    script = (
        "import sys, torch\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "model = AutoModelForCausalLM.from_pretrained(sys.argv[1])\n"
        "ids = AutoTokenizer.from_pretrained(sys.argv[1])('def main():', return_tensors='pt')\n"
        "print(model(**ids).logits.isfinite().all().item())\n"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", script, folder[1]],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert loaded.stdout.strip() == "True"


def test_details_that_the_end_of_a_run_leaves_out_are_tables_that_there_are(demo_store: Path) -> None:
    store = Store(str(demo_store))
    made = [store.find(manifest.stage, manifest.key) for manifest in store.manifests()]
    titles = {title for artifact in made if artifact is not None for title in tables(artifact)}
    assert {*DETAILS} <= titles


def test_demo_run_again_builds_nothing(demo_store: Path, pile) -> None:
    before = files_below(demo_store / "artifacts")
    again = pile("run", demo_store)
    assert again.returncode == 0
    assert "nothing to do" in again.stderr
    assert files_below(demo_store / "artifacts") == before


def test_plan_after_tokenizer_change_names_stages_and_field_and_writes_nothing(demo_store: Path, pile) -> None:
    before = files_below(demo_store)
    planned = pile("plan", demo_store, "--json", train_tokenizer__vocab_size=900)
    assert planned.returncode == 0
    stages = json.loads(planned.stdout)["stages"]
    assert [stage["state"] for stage in stages] == ["cached"] * 3 + ["run"] + ["waiting"] * 5
    assert [stage["stage"] for stage in stages] == STAGES
    changes = {stage["stage"]: stage["changes"] for stage in stages if stage["changes"]}
    assert changes == {"train-tokenizer": [{"field": "train_tokenizer.vocab_size", "old": 1024, "new": 900}]}
    assert [stage["key"] is None for stage in stages] == [False] * 4 + [True] * 5
    assert files_below(demo_store) == before


def test_plan_in_an_empty_place_writes_nothing(tmp_path: Path, pile) -> None:
    planned = pile("plan", tmp_path / "store", "--json")
    assert [stage["state"] for stage in json.loads(planned.stdout)["stages"]] == ["run"] + ["waiting"] * 8
    assert not (tmp_path / "store").exists()


def test_tokenize_after_tokenizer_change_runs_two_stages_and_nothing_after(copied_store: Path, pile) -> None:
    done = pile("run", copied_store, "--target", "tokenize", train_tokenizer__vocab_size=900)
    assert done.returncode == 0, done.stderr
    run = json.loads(pile("show", copied_store, "--json").stdout)
    states = {stage["stage"]: stage["state"] for stage in run["stages"]}
    assert states == {
        "download": "cached",
        "filter": "cached",
        "dedup": "cached",
        "train-tokenizer": "done",
        "tokenize": "done",
    }


def test_two_first_runs_at_once_share_the_work(tmp_path: Path, environment: dict[str, str]) -> None:
    # A home of their own: both meet a Prefect database that has yet to be made.
    environment = {**environment, "PREFECT_HOME": str(tmp_path / "prefect")}
    command = [sys.executable, "-m", "flows.command", "run", "demo", "--store", str(tmp_path), "--target", "dedup"]
    command += ["--set=download.source.text_bytes=1500000", "--set=download.shard_bytes=400000"]
    runs = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [run.communicate(timeout=280) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    manifests = list(tmp_path.glob("artifacts/*/*/manifest.json"))
    assert len(manifests) == 3
    for manifest in manifests:
        assert len(json.loads(manifest.read_bytes())["attempts"]) == 1
    shown = [re.findall(r"^\d of \d +(\w+) +(done|cached)", said, re.MULTILINE) for _, said in outputs]
    for stage in ("download", "filter", "dedup"):
        assert sorted(state for states in shown for name, state in states if name == stage) == ["cached", "done"]


def test_flipped_byte_is_named_by_verify_and_stops_the_run_that_needs_it(copied_store: Path, pile) -> None:
    assert pile("verify", copied_store).returncode == 0
    packed = next(copied_store.glob("artifacts/pack/*/data/train-*"))
    content = bytearray(packed.read_bytes())
    content[len(content) // 2] ^= 4
    packed.write_bytes(content)
    verified = pile("verify", copied_store)
    assert verified.returncode == 1
    assert packed.name in verified.stdout
    trained = pile("run", copied_store, "--force", "train")
    assert trained.returncode == 1
    assert packed.name in trained.stderr
    assert "Traceback" not in trained.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--set", "train.max_stepz=3"], 2, "train.max_stepz: the recipe has no such field"),
        (["--set", "train.max_steps=many"], 2, "train.max_steps"),
        (["--set", "pack.sequence_length=-1"], 2, "pack.sequence_length"),
        (["--target", "fly"], 2, "a target must be all or one of"),
        (["--store", "ftp://host/x"], 2, "the store must be"),
    ],
)
def test_run_with_bad_input_says_one_line_and_leaves_with_2(
    tmp_path: Path, pile, arguments: list[str], code: int, said: str
) -> None:
    failed = pile("run", tmp_path / "store", *arguments)
    assert failed.returncode == code
    assert said in failed.stderr
    assert "Traceback" not in failed.stderr
    assert not (tmp_path / "store").exists()
