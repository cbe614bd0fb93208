"""Every family through the pipeline: trained, evaluated, published, loaded by transformers, generating text."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e]

MODELS = {
    "gpt2-tiny": "GPT2LMHeadModel",
    "world-1m": "WorldForCausalLM",
    "hybrid-1m": "Qwen3NextForCausalLM",
    "gelu": "GPTNeoXForCausalLM",
}
"""`train.model` and the class that transformers loads its folder as."""

GELU = {"feed_forward": "gelu", "n_heads": 4, "n_kv_heads": 4, "d_model": 64, "d_ff": 256, "n_layers": 2}

LOAD = """
import json, sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, prompt = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
ids = tokenizer(tokenizer.bos_token + prompt, return_tensors="pt", add_special_tokens=False)
drawn = model.generate(**ids, max_new_tokens=8, do_sample=False)
assert "model.config" not in sys.modules, "the project must not be needed"
print(json.dumps({"class": type(model).__name__, "text": tokenizer.decode(drawn[0], skip_special_tokens=True)}))
"""


@pytest.fixture(scope="module")
def store(demo_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(demo_store, tmp_path_factory.mktemp("models") / "store"))


@pytest.mark.parametrize("name", MODELS)
def test_model_is_trained_published_and_generates_what_transformers_does(
    name: str, store: Path, pile, environment: dict[str, str], tmp_path: Path
) -> None:
    model = GELU if name == "gelu" else name
    # Documents are short beside the 64 tokens that a probe needs, so rows are longer here.
    probes = {"pack__probe_tokens": True, "pack__sequence_length": 128} if name == "world-1m" else {}
    done = pile("run", store, train__model=model, **probes)
    assert done.returncode == 0, done.stderr
    published = re.search(r"^publish +(/.+)$", done.stdout, re.MULTILINE)
    assert published
    generated = pile("generate", store, "--json", "--greedy", "--max-new-tokens", "8", "--prompt", "def main")
    assert generated.returncode == 0, generated.stderr
    script = tmp_path / "load.py"
    script.write_text(LOAD)
    outside = {**environment, "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path / "modules")}
    loaded = subprocess.run(
        [sys.executable, "-I", str(script), published[1], "def main"],
        env=outside,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert loaded.returncode == 0, loaded.stderr
    theirs = json.loads(loaded.stdout.splitlines()[-1])
    assert theirs["class"] == MODELS[name]
    (ours,) = json.loads(generated.stdout)
    assert theirs["text"] == ours["prompt"] + ours["text"]
    if name == "world-1m":
        classified = pile("generate", store, "--classify", "--max-new-tokens", "0", "--prompt", "def main")
        assert classified.returncode == 0, classified.stderr
        assert "software" in classified.stdout
        report = next(store.glob("artifacts/evaluate/*/reports/*context.html*"), None)
        assert report is not None, os.listdir(store / "artifacts" / "evaluate")
