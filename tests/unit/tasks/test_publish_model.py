"""The publish stage on small artifacts in a real store: what transformers loads from it is the trained model."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from model.export.saving import save_weights
from model.families.base import ModelConfig
from model.families.gpt2.config import GPT2Config
from model.families.registry import build_model
from model.families.rope.config import RopeConfig
from model.families.world.config import WorldConfig
from model.pretrained.folder import load_published
from model.pretrained.weights import ModelDescription, load_model, save_description
from storage.artifacts.store import Artifact, Store
from storage.artifacts.writer import ArtifactWriter
from storage.config import changed
from storage.errors import CorruptFileError, Fault, InputError
from storage.formats.documents import Document, DocumentWriter
from storage.formats.tokens import EOT, FIELD, TONE
from tasks.core.context import TABLES, StageContext
from tasks.core.execution import Execution
from tasks.core.runner import run_stage
from tasks.core.stage import RunContext, StageResult
from tasks.evaluate import stage as evaluate_model
from tasks.publish.build import describe, publish_model
from tasks.publish.config import PublishConfig
from tasks.publish.model_card import limits, usage
from tasks.publish.stage import STAGE

FILES = {
    "README.md",
    "config.json",
    "generation_config.json",
    "metrics.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
}
SHAPE = RopeConfig(vocab_size=320, n_layers=2, n_heads=4, n_kv_heads=2, d_model=32, d_ff=48, max_seq_len=32)
CONFIG = PublishConfig(
    name="tiny-1", license="Apache-2.0", languages=("en", "no"), description="Shows that publishing works."
)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def commit(store: Store, stage: str, part: str, files: dict[str, Path], **reports: bytes) -> Artifact:
    writer = ArtifactWriter(store, stage, "0123456789abcdef")
    stored = [writer.report(role.replace("_", "."), data) for role, data in reports.items()]
    return writer.publish(
        [writer.commit(part, files)],
        reports=stored,
        version=1,
        config={"learning_rate": 0.002, "model": {"n_layers": 2}} if stage == "train" else {},
        inputs={},
        sources={},
        recipe={},
        run_id="test",
        code_commit="",
        libraries={},
        started="",
        seconds=0.0,
    )


def make_tokenizer(store: Store, folder: Path) -> Artifact:
    encoder = Tokenizer(models.BPE())
    encoder.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    encoder.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=[EOT, TONE, FIELD], initial_alphabet=alphabet, show_progress=False
    )
    encoder.train_from_iterator(["the quick brown fox jumps over the lazy dog " * 5], trainer)
    encoder.save(str(folder / "tokenizer.json"))
    return commit(store, "train-tokenizer", "tokenizer", {"tokenizer": folder / "tokenizer.json"})


def make_model(
    store: Store, folder: Path, tokenizer_digest: str, seed: int = 1, shape: ModelConfig = SHAPE
) -> Artifact:
    torch.manual_seed(seed)
    network = build_model(shape)
    with torch.no_grad():  # clear preferences, so that greedy choices are not ties
        next(network.parameters()).mul_(20)
    save_weights(network.state_dict(), folder / "model.safetensors")
    description = ModelDescription(model=shape, tokenizer_digest=tokenizer_digest, steps=2)
    save_description(description, folder / "model.json")
    files = {"weights": folder / "model.safetensors", "model-config": folder / "model.json"}
    return commit(store, "train", "final", files, metrics_jsonl=b'{"step": 1, "loss": 5.0}\n')


def make_corpus(store: Store, folder: Path) -> Artifact:
    with DocumentWriter(folder / "test-00000.jsonl.zst") as writer:
        writer.write(Document("a", "prose", "The quick brown fox jumps over the lazy dog."))
        writer.write(Document("b", "tatar", "Кырмыска зур түгел, ә тауны күчерә."))
    return commit(store, "dedup", "test-00000", {"documents": folder / "test-00000.jsonl.zst"})


def context(store: Store) -> RunContext:
    return RunContext(store, "test", {}, Execution(threads=1, device="cpu"))


@pytest.fixture
def inputs(store: Store, tmp_path: Path) -> dict[str, Artifact]:
    return make_inputs(store, tmp_path, SHAPE)


def make_inputs(store: Store, tmp_path: Path, shape: ModelConfig) -> dict[str, Artifact]:
    tokenizer = make_tokenizer(store, tmp_path)
    model = make_model(store, tmp_path, tokenizer.content_digest, shape=shape)
    measured = {"model": model, "tokenizer": tokenizer, "corpus": make_corpus(store, tmp_path)}
    config = evaluate_model.EvaluateConfig(prompts=("the ```quick``` ",), sample_tokens=10)
    evaluation = run_stage(evaluate_model.STAGE, config, measured, context(store)).artifact
    return {"model": model, "tokenizer": tokenizer, "evaluation": evaluation}


def run(store: Store, inputs: dict[str, Artifact], config: PublishConfig = CONFIG, **options: Any) -> StageResult:
    return run_stage(STAGE, config, inputs, context(store), **options)


def contents(artifact: Artifact) -> dict[str, bytes]:
    return {file.role: artifact.open(file).read_bytes() for file in artifact.manifest.files}


def test_published_folder_loads_with_transformers_and_computes_the_same(
    store: Store, inputs: dict[str, Artifact]
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    artifact = run(store, inputs).artifact
    folder = artifact.open_folder("huggingface")
    assert {path.name for path in folder.iterdir()} == FILES
    loaded = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    trained = inputs["model"]
    ours = load_model(trained.open(trained.file("weights")), trained.open(trained.file("model-config")))
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    prompt = tokenizer(tokenizer.bos_token + "The fox, әйдә 🦊", return_tensors="pt")
    with torch.inference_mode():
        wanted, found = ours(prompt["input_ids"]), loaded(**prompt).logits
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert tokenizer.decode(prompt["input_ids"][0], skip_special_tokens=True) == "The fox, әйдә 🦊"
    assert loaded.generation_config.eos_token_id == tokenizer.eos_token_id == 0
    assert artifact.counts == {"parameters": sum(parameter.numel() for parameter in ours.parameters())}


WORLD = WorldConfig(
    vocab_size=320, max_seq_len=32, n_superblocks=1, d_model=32, n_heads=2, n_kv_heads=1, head_dim=16,
    n_key_heads=2, key_dim=8, n_value_heads=2, value_dim=8, num_experts=4, top_k=2, d_expert=16, d_shared=16,
    context_rank=4, n_tones=6, n_fields=12,
)  # fmt: skip
HYBRID = changed(WORLD, router="softmax_aux", context_rank=0, n_tones=0, n_fields=0)


@pytest.mark.parametrize(
    ("shape", "architecture", "tag"),
    [
        (GPT2Config(vocab_size=320, n_layers=1, n_heads=2, d_model=16, max_seq_len=32), "GPT2LMHeadModel", "gpt2"),
        (changed(SHAPE, feed_forward="gelu", n_kv_heads=4), "GPTNeoXForCausalLM", "gpt_neox"),
        (HYBRID, "Qwen3NextForCausalLM", "qwen3_next"),
        (WORLD, "WorldForCausalLM", "custom_code"),
    ],
    ids=["gpt2", "gelu", "hybrid", "world"],
)
def test_each_family_is_published_in_its_form(
    store: Store, tmp_path: Path, shape: ModelConfig, architecture: str, tag: str
) -> None:
    artifact = run(store, make_inputs(store, tmp_path, shape)).artifact
    files = contents(artifact)
    config = json.loads(files["config.json"])
    assert config["architectures"] == [architecture]
    header, body = files["README.md"].decode().split("---\n", 2)[1:]
    assert tag in yaml.safe_load(header)["tags"]
    own_code = architecture == "WorldForCausalLM"
    assert ("trust_remote_code=True" in body) == own_code
    assert "model.classify" not in body  # these heads were never trained
    assert "Tone and field were learned" not in body
    assert ({name for name in files if name.endswith(".py")} != set()) == own_code
    assert config.get("has_trained_heads") == (False if own_code else None)
    if own_code:
        assert (config["tone_token_id"], config["field_token_id"]) == (1, 2)
        assert (len(config["tone_names"]), len(config["field_names"])) == (6, 12)
    assert load_published(artifact.open_folder("huggingface")).config.vocab_size == 320


@pytest.mark.parametrize("trained_heads", [True, False])
def test_card_speaks_of_heads_that_were_trained(trained_heads: bool) -> None:
    world, shape = describe(WORLD), {**dict(WORLD), "parameters": 5}
    assert ("model.classify" in "".join(usage(world, trained_heads=trained_heads))) == trained_heads
    assert ("weak labels" in limits(world, shape, trained_heads=trained_heads)) == trained_heads


def test_check_is_shown_with_its_numbers(store: Store, inputs: dict[str, Artifact]) -> None:
    tables = json.loads(run(store, inputs).artifact.report(TABLES) or b"")
    assert list(tables) == ["Checked with transformers", "Published files"]
    assert [row["result"] for row in tables["Checked with transformers"]][3:] == [5, 31]
    difference, allowed = (float(row["result"]) for row in tables["Checked with transformers"][1:3])
    assert difference <= allowed <= 1e-2
    assert {row["file"] for row in tables["Published files"]} == FILES


def test_folder_is_byte_identical_when_repeated(store: Store, inputs: dict[str, Artifact]) -> None:
    first = run(store, inputs).artifact
    second = run(store, inputs, force=True, resume=False).artifact
    assert first.manifest.attempts != second.manifest.attempts
    assert contents(first) == contents(second)


def test_model_card_has_a_header_the_numbers_the_samples_and_the_lineage(
    store: Store, inputs: dict[str, Artifact]
) -> None:
    files = contents(run(store, inputs).artifact)
    card, metrics = files["README.md"].decode(), json.loads(files["metrics.json"])
    _, header, body = card.split("---\n", 2)
    assert yaml.safe_load(header) == {
        "license": "apache-2.0",
        "language": ["en", "no"],  # quoted in YAML, where a bare `no` is false
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["llama", "pile-pipeline"],
    }
    assert body.strip().startswith("# tiny-1\n\nShows that publishing works.")
    for row in [*metrics["subsets"], metrics["total"]]:
        rates = [f"{row['bits_per_byte'][name]:.4f}" for name in ("model", "unigram", "zstd_19", "xz_9")]
        assert f"| {row['subset']} | {row['documents']} | {row['text_bytes']:,} | {' | '.join(rates)} |" in body
    assert f"````text\nthe ```quick``` {metrics['samples'][0]['text']}\n````" in body
    for artifact in inputs.values():
        assert f"| {artifact.ref} | {artifact.content_digest} |" in body
    assert "| dedup | " in body
    assert "| learning_rate | 0.002 |" in body
    assert files["metrics.json"] == contents(inputs["evaluation"])["metrics"]


def test_model_card_without_languages_and_prompts_is_complete(
    store: Store, inputs: dict[str, Artifact], tmp_path: Path
) -> None:
    measured = {**inputs, "corpus": make_corpus(store, tmp_path)}
    del measured["evaluation"]
    config = evaluate_model.EvaluateConfig(prompts=())
    bare = run_stage(evaluate_model.STAGE, config, measured, context(store)).artifact
    card = contents(run(store, {**inputs, "evaluation": bare}, PublishConfig()).artifact)["README.md"].decode()
    assert "language" not in card.split("---\n")[1]
    assert "No prompts were given." in card


def test_killed_after_the_commit_keeps_the_folder_and_checks_it_again(
    store: Store, inputs: dict[str, Artifact]
) -> None:
    def fresh() -> StageContext:
        return StageContext(
            ArtifactWriter(store, STAGE.name, "fedcba9876543210"),
            Execution(threads=1),
            lambda done, total, unit, *_: None,
        )

    first, second = fresh(), fresh()
    (part,) = publish_model(CONFIG, **inputs, context=first)
    assert publish_model(CONFIG, **inputs, context=second) == [part]
    reports = [context.finish_reports()[0].sha256 for context in (first, second)]
    assert reports[0] == reports[1]


def test_corrupt_weights_are_refused_and_nothing_is_published(store: Store, inputs: dict[str, Artifact]) -> None:
    trained = inputs["model"]
    path = trained.open(trained.file("weights"))
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(CorruptFileError, match="found sha256"):
        run(store, inputs)
    assert not [path for path in store.paths("artifacts/publish") if "/parts/" in path or "manifest" in path]


def test_weights_that_are_not_the_described_model_are_refused(
    store: Store, inputs: dict[str, Artifact], tmp_path: Path
) -> None:
    other = SHAPE.model_copy(update={"n_layers": 3})
    save_weights(build_model(other).state_dict(), tmp_path / "model.safetensors")
    digest = inputs["tokenizer"].content_digest
    save_description(ModelDescription(model=SHAPE, tokenizer_digest=digest, steps=2), tmp_path / "model.json")
    files = {"weights": tmp_path / "model.safetensors", "model-config": tmp_path / "model.json"}
    wrong = commit(store, "train", "final", files)
    evaluation = inputs["evaluation"]
    metrics = json.loads(evaluation.open(evaluation.file("metrics")).read_bytes())
    metrics["inputs"]["model"] = wrong.content_digest
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    measured = commit(store, "evaluate", "evaluation", {"metrics": tmp_path / "metrics.json"})
    with pytest.raises(Fault, match=r"layers\.2\..* is not known"):
        run(store, {**inputs, "model": wrong, "evaluation": measured})


def test_evaluation_of_another_model_is_refused(store: Store, inputs: dict[str, Artifact], tmp_path: Path) -> None:
    other = make_model(store, tmp_path, inputs["tokenizer"].content_digest, seed=2)
    with pytest.raises(InputError, match="must have measured train/"):
        run(store, {**inputs, "model": other})


@pytest.mark.parametrize("fields", [{"name": "a/b"}, {"name": ""}, {"license": "my own"}])
def test_name_or_licence_that_a_hub_would_not_take_is_refused(fields: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="should match pattern"):
        PublishConfig(**fields)
