"""The evaluate stage on small artifacts in a real store, against sums done by hand."""

import json
import lzma
import math
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
import zstandard
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from model.export.saving import save_weights
from model.families.rope.config import RopeConfig
from model.families.rope.network import RopeModel
from model.pretrained.weights import ModelDescription, load_model, save_description
from storage.artifacts.store import Artifact, Store
from storage.artifacts.writer import ArtifactWriter
from storage.config import changed
from storage.errors import CorruptFileError, Fault, InputError
from storage.formats.documents import Document, DocumentWriter
from storage.formats.tokens import EOT
from tasks.core.context import TABLES, StageContext
from tasks.core.execution import Execution
from tasks.core.runner import run_stage
from tasks.core.stage import RunContext, StageResult
from tasks.evaluate.build import evaluate_model
from tasks.evaluate.config import EvaluateConfig
from tasks.evaluate.held_out import compressed_bytes, primed_bytes, read_held_out
from tasks.evaluate.stage import STAGE

LENGTH = 16
SHAPE = RopeConfig(vocab_size=320, n_layers=1, n_heads=2, n_kv_heads=1, d_model=16, d_ff=24, max_seq_len=LENGTH)
CONFIG = EvaluateConfig(prompts=("The ", ""), sample_tokens=12, batch_tokens=64)

DOCUMENTS = {
    "test-00000": [
        Document("a", "prose", "The quick brown fox jumps over the lazy dog, and then it sleeps."),
        Document("b", "code", "def f(x):\n\treturn x ** 2\n"),
        Document("c", "prose", "Кырмыска зур түгел, ә тауны күчерә. 🐜"),
    ],
    "test-00001": [
        Document("d", "code", f"print('{EOT}')  # a text that names the special token"),
        Document("e", "prose", "x"),
    ],
    "train-00000": [Document("t", "prose", "never scored " * 50)],
}
TITLES = ["Bits per byte", "The model beside every baseline, all text", "Before you trust these numbers"]
LOSSES = [
    {"step": 1, "loss": 5.7, "lr": 0.1},
    {"step": 2, "val_loss": 5.5},
    {"step": 2, "loss": 5.4, "lr": 0.1},
]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def publish(store: Store, stage: str, files: dict[str, dict[str, Path]], reports: dict[str, bytes]) -> Artifact:
    writer = ArtifactWriter(store, stage, "0123456789abcdef")
    parts = [writer.commit(part, members) for part, members in files.items()]
    stored = [writer.report(role, data) for role, data in reports.items()]
    return writer.publish(
        parts,
        reports=stored,
        version=1,
        config={},
        inputs={},
        sources={},
        recipe={},
        run_id="test",
        code_commit="",
        libraries={},
        started="",
        seconds=0.0,
    )


def corpus(store: Store, folder: Path, documents: dict[str, list[Document]]) -> Artifact:
    folder.mkdir(exist_ok=True)
    files = {}
    for part, members in documents.items():
        with DocumentWriter(folder / f"{part}.jsonl.zst") as writer:
            for document in members:
                writer.write(document)
        files[part] = {"documents": folder / f"{part}.jsonl.zst"}
    return publish(store, "dedup", files, {})


def tokenizer(store: Store, folder: Path, *, lowercase: bool = False) -> Artifact:
    folder.mkdir(exist_ok=True)
    encoder = Tokenizer(models.BPE())
    encoder.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    encoder.decoder = decoders.ByteLevel()
    if lowercase:
        encoder.normalizer = normalizers.Lowercase()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=[EOT], initial_alphabet=alphabet, show_progress=False
    )
    encoder.train_from_iterator(["The quick brown fox jumps over the lazy dog " * 5], trainer)
    encoder.save(str(folder / "tokenizer.json"))
    return publish(store, "train-tokenizer", {"tokenizer": {"tokenizer": folder / "tokenizer.json"}}, {})


def model(store: Store, folder: Path, tokenizer_digest: str, reports: dict[str, bytes] | None = None) -> Artifact:
    folder.mkdir(exist_ok=True)
    torch.manual_seed(1)
    network = RopeModel(SHAPE)
    with torch.no_grad():  # far from uniform, so that a wrong context shows in the numbers
        network.embed_tokens.weight.mul_(20)
    save_weights(network.state_dict(), folder / "model.safetensors")
    description = ModelDescription(model=SHAPE, tokenizer_digest=tokenizer_digest, steps=2)
    save_description(description, folder / "model.json")
    files = {"weights": folder / "model.safetensors", "model-config": folder / "model.json"}
    lines = "".join(json.dumps(line) + "\n" for line in LOSSES)
    return publish(store, "train", {"final": files}, reports or {"metrics.jsonl": lines.encode()})


@pytest.fixture
def inputs(store: Store, tmp_path: Path) -> dict[str, Artifact]:
    encoder = tokenizer(store, tmp_path / "tokenizer")
    return {
        "model": model(store, tmp_path / "model", encoder.content_digest),
        "tokenizer": encoder,
        "corpus": corpus(store, tmp_path / "corpus", DOCUMENTS),
    }


def context(store: Store, **execution: Any) -> RunContext:
    return RunContext(store, "test", {}, Execution(threads=1, device="cpu", **execution))


def run(store: Store, inputs: dict[str, Artifact], config: EvaluateConfig = CONFIG, **options: Any) -> StageResult:
    return run_stage(STAGE, config, inputs, context(store), **options)


def metrics_of(artifact: Artifact) -> dict[str, Any]:
    return json.loads(artifact.open(artifact.file("metrics")).read_bytes())


def encoder_of(inputs: dict[str, Artifact]) -> Tokenizer:
    return Tokenizer.from_file(str(inputs["tokenizer"].open(inputs["tokenizer"].file("tokenizer"))))


def slow_bits(inputs: dict[str, Artifact], text: str) -> tuple[float, int]:
    """Bits and tokens of a text, one forward pass per token."""
    encoder = encoder_of(inputs)
    encoder.encode_special_tokens = True
    artifact = inputs["model"]
    network = load_model(artifact.open(artifact.file("weights")), artifact.open(artifact.file("model-config")))
    ids = encoder.encode(text).ids
    stream, bits = [0, *ids], 0.0
    for position, token in enumerate(ids):
        block_end = min((position // LENGTH + 1) * LENGTH, len(ids))
        with torch.inference_mode():
            logits = network(torch.tensor([stream[max(0, block_end - LENGTH) : position + 1]]))[0, -1].double()
        bits -= float(logits.log_softmax(-1)[token]) / math.log(2)
    return bits, len(ids)


def test_bits_per_byte_equal_a_computation_by_hand(store: Store, inputs: dict[str, Artifact]) -> None:
    metrics = metrics_of(run(store, inputs).artifact)
    held_out = [document for part in ("test-00000", "test-00001") for document in DOCUMENTS[part]]
    sums, used_vocab = {}, encoder_of(inputs).get_vocab_size()
    for subset in ("code", "prose"):
        texts = [document.text for document in held_out if document.subset == subset]
        scored = [slow_bits(inputs, text) for text in texts]
        sums[subset] = (
            sum(bits for bits, _ in scored),
            sum(tokens for _, tokens in scored),
            sum(len(text.encode()) for text in texts),
        )
    rows = [*metrics["subsets"], metrics["total"]]
    sums["all"] = tuple(map(sum, zip(*sums.values(), strict=True)))
    assert [row["subset"] for row in rows] == ["code", "prose", "all"]
    for row in rows:
        bits, tokens, text_bytes = sums[row["subset"]]
        assert (row["tokens"], row["text_bytes"]) == (tokens, text_bytes)
        assert row["bits_per_byte"]["model"] == pytest.approx(bits / text_bytes, abs=1e-4)
        assert row["loss"] == pytest.approx(bits * math.log(2) / tokens, abs=1e-4)
        assert row["bits_per_byte"]["uniform"] == pytest.approx(
            tokens * math.log2(used_vocab) / text_bytes, abs=1e-4
        )
    assert [row["documents"] for row in rows] == [2, 3, 5]


def test_unigram_baseline_is_the_entropy_of_the_tokens(store: Store, tmp_path: Path) -> None:
    encoder = tokenizer(store, tmp_path / "tokenizer")
    texts = {"test-00000": [Document("a", "s", "zzzq"), Document("b", "s", "zzq~")]}
    inputs = {
        "model": model(store, tmp_path / "model", encoder.content_digest),
        "tokenizer": encoder,
        "corpus": corpus(store, tmp_path / "corpus", texts),
    }
    row = metrics_of(run(store, inputs).artifact)["total"]
    assert row["tokens"] == row["text_bytes"] == 8  # no merges for these letters
    wanted = -(5 / 8 * math.log2(5 / 8) + 2 / 8 * math.log2(2 / 8) + 1 / 8 * math.log2(1 / 8))
    assert row["bits_per_byte"]["unigram_self"] == pytest.approx(wanted, abs=1e-4)
    # Nothing was learned: there is no training text.
    used = encoder_of(inputs).get_vocab_size()
    for name in ("unigram", "uniform"):
        assert row["bits_per_byte"][name] == pytest.approx(math.log2(used), abs=1e-4)


def test_baselines_learn_from_training_text_and_small_splits_are_warned_of(
    store: Store, inputs: dict[str, Artifact]
) -> None:
    artifact = run(store, inputs).artifact
    encoder, total = encoder_of(inputs), metrics_of(artifact)["total"]
    encoder.encode_special_tokens = True
    train = encoder.encode("never scored " * 50, add_special_tokens=False).ids
    used, bits = encoder.get_vocab_size(), 0.0
    for document in (d for part in ("test-00000", "test-00001") for d in DOCUMENTS[part]):
        for token in encoder.encode(document.text, add_special_tokens=False).ids:
            bits -= math.log2((train.count(token) + 1) / (len(train) + used))
    assert total["bits_per_byte"]["unigram"] == pytest.approx(bits / total["text_bytes"], abs=1e-4)
    assert total["warnings"][0].startswith("too small to judge: 5 documents")
    assert any("worse than" in text or "cannot be told" in text for text in total["warnings"])
    for text in ((artifact.report("report.md") or b"").decode(), (artifact.report(TABLES) or b"").decode()):
        assert "too small to judge: 5 documents" in text
        assert "token frequencies of training text" in text


def test_primer_helps_a_compressor_where_texts_are_alike() -> None:
    noise = random.Random(0).randbytes(5000).hex()
    alone, primed = compressed_bytes([noise]), primed_bytes([noise], "before " + noise)
    assert primed["zstd_19_primed"] < alone["zstd_19"] / 20
    assert primed["xz_9_primed"] < alone["xz_9"] / 20
    assert primed_bytes([noise], "")["zstd_19_primed"] == alone["zstd_19"]


def test_compressors_give_what_the_command_line_tools_give() -> None:
    texts = ["".join(chr(97 + i * i % 26) for i in range(3000)), "әйдә " * 100, "x" * 5000]
    data = "".join(texts).encode()
    found = compressed_bytes(texts)
    assert found["xz_9"] == len(lzma.compress(data, preset=9))
    if shutil.which("xz"):
        assert found["xz_9"] == len(subprocess.run(["xz", "-9", "-c"], input=data, capture_output=True).stdout)
    if shutil.which("zstd"):
        command = ["zstd", "-19", "--no-check", "-c"]
        by_tool = subprocess.run(command, input=data, capture_output=True).stdout
        assert zstandard.ZstdDecompressor().stream_reader(by_tool).read() == data
        # Another release of zstd may find a few other matches; the tool's frame lacks the size of the content.
        assert found["zstd_19"] == pytest.approx(len(by_tool), rel=0.02, abs=12)
    assert found["zstd_19"] == len(zstandard.compress(data, 19))


def test_zstd_looks_back_no_further_than_the_window_of_its_level() -> None:
    window = zstandard.ZstdCompressionParameters.from_level(19).window_log
    assert window == 23  # 8 MiB
    noise = random.Random(0).randbytes(300_000).hex()
    between = "x" * (1 << window)
    once = compressed_bytes([noise + between])["zstd_19"]
    assert compressed_bytes([noise + between, noise])["zstd_19"] > 1.9 * once


def test_bound_takes_the_beginning_of_each_subset(store: Store, inputs: dict[str, Artifact]) -> None:
    prose = [
        d.text.encode() for part in DOCUMENTS if "test" in part for d in DOCUMENTS[part] if d.subset == "prose"
    ]
    # Inside the ant of the second document, which has four bytes of which none is taken.
    bound = len(prose[0]) + len(prose[1]) - 2
    held_out = read_held_out(inputs["corpus"], "test", bound)["prose"]
    assert "".join(held_out.texts).encode() == prose[0] + prose[1][:-4]
    assert (held_out.text_bytes, held_out.split_documents) == (bound - 2, 3)
    assert held_out.split_bytes == sum(map(len, prose))
    row = metrics_of(run(store, inputs, changed(CONFIG, max_bytes_per_subset=bound)).artifact)["subsets"][1]
    assert (row["documents"], row["text_bytes"], row["split_documents"]) == (2, bound - 2, 3)


def test_evaluation_is_byte_identical_when_repeated(store: Store, inputs: dict[str, Artifact]) -> None:
    first = run(store, inputs).artifact
    second = run(store, inputs, force=True, resume=False).artifact
    assert first.content_digest == second.content_digest
    for role in ("report.md", "samples.txt", "loss.png", TABLES):
        assert first.report(role) == second.report(role)


def test_batch_size_does_not_change_the_numbers(store: Store, inputs: dict[str, Artifact]) -> None:
    one, other = run(store, inputs).artifact, run(store, inputs, changed(CONFIG, batch_tokens=1)).artifact
    assert metrics_of(one)["subsets"] == metrics_of(other)["subsets"]


def test_killed_after_the_measurement_keeps_it_and_still_reports(
    store: Store, inputs: dict[str, Artifact]
) -> None:
    told: list[str] = []
    writer = ArtifactWriter(store, STAGE.name, "fedcba9876543210")
    context = StageContext(
        writer, Execution(threads=1, device="cpu"), lambda done, total, unit, *_: told.append(unit)
    )
    (first,) = evaluate_model(CONFIG, **inputs, context=context)
    assert set(told) == {"tokens"}
    told.clear()
    again = StageContext(
        ArtifactWriter(store, STAGE.name, "fedcba9876543210"), context.execution, context.progress
    )
    assert evaluate_model(CONFIG, **inputs, context=again) == [first]
    assert told == []
    assert {report.role for report in again.finish_reports()} == {"report.md", "samples.txt", "loss.png", TABLES}


def test_reports_show_the_numbers_the_samples_and_their_origin(store: Store, inputs: dict[str, Artifact]) -> None:
    artifact = run(store, inputs).artifact
    metrics, report = metrics_of(artifact), (artifact.report("report.md") or b"").decode()
    tables = json.loads(artifact.report(TABLES) or b"")
    assert list(tables) == [*TITLES, "Samples"]
    assert tables["Bits per byte"][0] == {
        "subset": "code",
        "docs": 2,
        "bytes": metrics["subsets"][0]["text_bytes"],
        "frequencies": metrics["subsets"][0]["bits_per_byte"]["unigram"],
        "model": metrics["subsets"][0]["bits_per_byte"]["model"],
        "zstd -19": metrics["subsets"][0]["bits_per_byte"]["zstd_19"],
        "xz -9": metrics["subsets"][0]["bits_per_byte"]["xz_9"],
    }
    for text in (
        inputs["model"].ref,
        inputs["corpus"].content_digest,
        "end-of-text token",
        "5.5000 nats per token",
    ):
        assert text in report
    assert [sample["prompt"] for sample in metrics["samples"]] == ["The ", ""]
    assert metrics["samples"][0]["text"]
    assert f"```text\nThe {metrics['samples'][0]['text']}\n```" in report
    assert (artifact.report("loss.png") or b"").startswith(b"\x89PNG")


def test_added_prompt_leaves_the_other_samples(store: Store, inputs: dict[str, Artifact]) -> None:
    two = metrics_of(run(store, inputs).artifact)["samples"]
    three = metrics_of(run(store, inputs, changed(CONFIG, prompts=("The ", "", "dog"))).artifact)["samples"]
    assert three[:2] == two


def test_same_prompt_twice_gives_two_samples(store: Store, inputs: dict[str, Artifact]) -> None:
    config = changed(CONFIG, prompts=("The ", "The "), temperature=5.0)
    first, second = metrics_of(run(store, inputs, config).artifact)["samples"]
    assert first != second


def test_no_prompts_give_a_report_without_samples(store: Store, inputs: dict[str, Artifact]) -> None:
    artifact = run(store, inputs, changed(CONFIG, prompts=())).artifact
    assert "No prompts were given." in (artifact.report("report.md") or b"").decode()
    assert list(json.loads(artifact.report(TABLES) or b"")) == TITLES


def test_split_without_documents_is_refused(store: Store, inputs: dict[str, Artifact]) -> None:
    with pytest.raises(InputError, match=r"split 'val' of dedup/.* evaluate\.split"):
        run(store, inputs, changed(CONFIG, split="val"))


def test_tokenizer_of_another_model_is_refused(store: Store, inputs: dict[str, Artifact], tmp_path: Path) -> None:
    other = model(store, tmp_path / "other", "ff" * 32)
    with pytest.raises(InputError, match="must be the one that train/"):
        run(store, {**inputs, "model": other})


def test_tokenizer_that_loses_text_is_a_fault(store: Store, tmp_path: Path) -> None:
    encoder = tokenizer(store, tmp_path / "tokenizer", lowercase=True)
    inputs = {
        "model": model(store, tmp_path / "model", encoder.content_digest),
        "tokenizer": encoder,
        "corpus": corpus(store, tmp_path / "corpus", DOCUMENTS),
    }
    with pytest.raises(Fault, match="'prose' that begins 'The quick brown"):
        run(store, inputs)


def test_damaged_weights_are_refused(store: Store, inputs: dict[str, Artifact]) -> None:
    artifact = inputs["model"]
    path = artifact.open(artifact.file("weights"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptFileError, match="found sha256"):
        run(store, inputs)


@pytest.mark.parametrize("log", [b"{", b'{"step": 1}\n', b'{"loss": 2.0}\n'])
def test_loss_log_that_cannot_be_read_is_a_fault(
    store: Store, inputs: dict[str, Artifact], tmp_path: Path, log: bytes
) -> None:
    digest = inputs["tokenizer"].content_digest
    other = model(store, tmp_path / "other", digest, reports={"metrics.jsonl": log})
    with pytest.raises(Fault, match=r"metrics\.jsonl of train/"):
        run(store, {**inputs, "model": other})


def test_lost_loss_log_is_said_and_leaves_out_the_plot(
    store: Store, inputs: dict[str, Artifact], tmp_path: Path
) -> None:
    other = model(store, tmp_path / "other", inputs["tokenizer"].content_digest, reports={"other.json": b"{}"})
    artifact = run(store, {**inputs, "model": other}).artifact
    assert artifact.report("loss.png") is None
    assert "The train artifact has no loss log." in (artifact.report("report.md") or b"").decode()


def test_device_that_is_not_there_is_refused(store: Store, inputs: dict[str, Artifact]) -> None:
    if torch.backends.mps.is_available():
        pytest.skip("this machine has the device")
    with pytest.raises(InputError, match="device 'mps' must be usable by torch"):
        run_stage(STAGE, CONFIG, inputs, RunContext(store, "test", {}, Execution(device="mps")))
