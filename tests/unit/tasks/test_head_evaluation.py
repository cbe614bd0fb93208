"""The evaluate stage on small world models, against heads that are read one document at a time."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from model.export.saving import save_weights
from model.families.registry import build_model
from model.families.rope.config import RopeConfig
from model.families.world.config import WorldConfig
from model.pretrained.weights import ModelDescription, load_model, save_description
from storage.artifacts.store import Artifact, Store
from storage.artifacts.writer import ArtifactWriter
from storage.config import changed
from storage.errors import InputError
from storage.formats.documents import Document, DocumentWriter
from storage.formats.tokens import EOT, FIELD, TONE
from tasks.core.context import TABLES
from tasks.core.execution import Execution
from tasks.core.runner import run_stage
from tasks.core.stage import RunContext
from tasks.evaluate.config import EvaluateConfig
from tasks.evaluate.heads import class_rows, scores
from tasks.evaluate.held_out import read_train_sample
from tasks.evaluate.stage import STAGE
from tasks.labels.field import FIELDS
from tasks.labels.tone import TONES, tone_label

SHAPE = WorldConfig(
    n_superblocks=1, d_model=16, n_heads=2, n_kv_heads=1, head_dim=8, n_key_heads=1, key_dim=8, n_value_heads=2,
    value_dim=8, num_experts=4, top_k=2, d_expert=8, d_shared=8, context_rank=4, context_window=16, n_tones=6,
    n_fields=12, vocab_size=320, max_seq_len=100, rotary_fraction=0.5,
)  # fmt: skip
ROPE = RopeConfig(vocab_size=320, n_layers=1, n_heads=2, n_kv_heads=1, d_model=16, d_ff=24, max_seq_len=100)
CONFIG = EvaluateConfig(prompts=(), batch_tokens=400)
FIELD_MAP = {"recipes": "literature", "notes": None}

SENTENCES = {
    "questioning": "Is it so that the {} of the {} was in it? Why is the {} here, and is it for you and the {}?",
    "emphatic": "The {} is on the {} and it was not that {}! It is the {} of the {} that was here!",
    "neutral": "The {} was on the {} of that. It is the {} that the {} was in, as it is for a {}.",
}
NOUNS = ("house", "river", "stone", "bread", "garden", "window", "table", "winter")


def text_of(tone: str, seed: int, sentences: int = 6) -> str:
    chance = random.Random(seed)
    return " ".join(SENTENCES[tone].format(*(chance.choice(NOUNS) for _ in range(5))) for _ in range(sentences))


DOCUMENTS = {
    "test-00000": [
        Document("a", "FreeLaw", text_of("neutral", 1, 3)),
        Document("b", "FreeLaw", text_of("questioning", 2, 2)),
        Document("c", "recipes", text_of("emphatic", 3)),
        Document("d", "recipes", "too short to be asked about"),
        Document("e", "notes", text_of("neutral", 4, 4)),
        Document("f", "Github", "def f(x):\n    return x\n\n" * 20),
    ],
    "train-00000": [Document(f"t{n}", "FreeLaw", text_of("neutral", 10 + n)) for n in range(20)],
    "train-00001": [Document(f"u{n}", "recipes", text_of("questioning", 40 + n)) for n in range(9)],
}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def publish(
    store: Store,
    stage: str,
    files: dict[str, dict[str, Path]],
    inputs: dict[str, Artifact] | None = None,
    config: dict[str, Any] | None = None,
) -> Artifact:
    writer = ArtifactWriter(store, stage, "0123456789abcdef")
    parts = [writer.commit(part, members) for part, members in files.items()]
    return writer.publish(
        parts,
        version=1,
        config=config or {},
        inputs=inputs or {},
        sources={},
        recipe={},
        run_id="test",
        code_commit="",
        libraries={},
        started="",
        seconds=0.0,
    )


def corpus(store: Store, folder: Path, documents: dict[str, list[Document]]) -> Artifact:
    files = {}
    for part, members in documents.items():
        files[part] = {"documents": folder / f"{part}.jsonl.zst"}
        with DocumentWriter(files[part]["documents"]) as writer:
            for document in members:
                writer.write(document)
    return publish(store, "dedup", files)


def tokenizer(store: Store, folder: Path) -> Artifact:
    encoder = Tokenizer(models.BPE())
    encoder.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    encoder.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=310,
        special_tokens=[EOT, TONE, FIELD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    encoder.train_from_iterator([text_of(tone, 0, 40) for tone in SENTENCES], trainer)
    encoder.save(str(folder / "tokenizer.json"))
    return publish(store, "train-tokenizer", {"tokenizer": {"tokenizer": folder / "tokenizer.json"}})


Make = Callable[..., dict[str, Artifact]]


@pytest.fixture
def make(store: Store, tmp_path: Path) -> Make:
    """A function that returns the inputs of the stage for a model of some shape."""

    def make(
        shape: WorldConfig | RopeConfig = SHAPE,
        has_trained_heads: bool = True,
        documents: dict[str, list[Document]] = DOCUMENTS,
        gain: float = 0.0,
    ) -> dict[str, Artifact]:
        encoder = tokenizer(store, tmp_path)
        torch.manual_seed(23)  # its heads are right and wrong, sure and unsure
        network = build_model(shape)
        with torch.no_grad():  # far from uniform, so that another token, place or order shows in the numbers
            network.embed_tokens.weight.mul_(20)
            network.embed_tokens.weight[[1, 2]] *= 0.01  # the probes themselves say nothing
            for name, parameter in network.named_parameters():
                if name.endswith(("o_proj.weight", "out_proj.weight")):
                    parameter.mul_(100)
                if name.endswith("_head.weight"):
                    parameter.mul_(20)
                if name.endswith("gain_decay"):
                    parameter.fill_(gain)
        weights, described = tmp_path / "model.safetensors", tmp_path / "model.json"
        save_weights(network.state_dict(), weights)
        digest = encoder.content_digest
        save_description(
            ModelDescription(model=shape, tokenizer_digest=digest, steps=1, has_trained_heads=has_trained_heads),
            described,
        )
        (tmp_path / "rows").write_bytes(b"nobody reads them")
        packed = {"train-00000": {"sequences": tmp_path / "rows"}}
        sequences = publish(store, "pack", packed, config={"field_map": FIELD_MAP})
        files = {"final": {"weights": weights, "model-config": described}}
        return {
            "model": publish(store, "train", files, {"sequences": sequences}),
            "tokenizer": encoder,
            "corpus": corpus(store, tmp_path, documents),
        }

    return make


def run(store: Store, inputs: dict[str, Artifact], config: EvaluateConfig = CONFIG, **options: Any) -> Artifact:
    context = RunContext(store, "test", {}, Execution(threads=1, device="cpu"))
    return run_stage(STAGE, config, inputs, context, **options).artifact


def metrics_of(artifact: Artifact) -> dict[str, Any]:
    return json.loads(artifact.open(artifact.file("metrics")).read_bytes())


def report_of(artifact: Artifact) -> str:
    return (artifact.report("report.md") or b"").decode()


def slow_heads(inputs: dict[str, Artifact], text: str) -> dict[str, np.ndarray]:
    """Return the probabilities that the heads give for a text, from logits of the plain forward pass."""
    artifact = inputs["model"]
    network = load_model(artifact.open(artifact.file("weights")), artifact.open(artifact.file("model-config")))
    encoder = Tokenizer.from_file(str(inputs["tokenizer"].open(inputs["tokenizer"].file("tokenizer"))))
    names = {name: encoder.token_to_id(name) for name in (EOT, TONE, FIELD)}
    ids = [names[EOT], *encoder.encode(text).ids, names[EOT]][: SHAPE.max_seq_len - 2]
    hidden = network.hidden(torch.tensor([[*ids, names[TONE], names[FIELD]]]))[0].detach().numpy()
    found = {}
    for kind, place in (("tone", -2), ("field", -1)):
        head = getattr(network, f"{kind}_head")
        logits = head.weight.detach().numpy() @ hidden[place] + head.bias.detach().numpy()
        found[kind] = np.exp(logits) / np.exp(logits).sum()
    return found


def test_heads_are_scored_as_by_hand(store: Store, make: Make) -> None:
    inputs = make()
    heads = metrics_of(run(store, inputs))["heads"]
    asked = [document for document in DOCUMENTS["test-00000"] if document.id != "d"]
    fields = {"FreeLaw": "law", "recipes": "literature", "Github": "software"}
    labels = {
        "tone": [tone_label(document.text) for document in asked],
        "field": [
            FIELDS.index(fields[document.subset]) if document.subset in fields else None for document in asked
        ],
    }
    assert labels["tone"] == [0, 1, 2, 0, None]
    assert (heads["documents"], heads["read_tokens"]) == (5, 98)
    assert (heads["train_documents"], heads["train_shards"]) == (29, 2)
    for kind, wanted in labels.items():
        chances = [slow_heads(inputs, document.text)[kind] for document in asked]
        pairs = [(chance, label) for chance, label in zip(chances, wanted, strict=True) if label is not None]
        hits = [chance.argmax() == label for chance, label in pairs]
        sure = [chance.max() >= 0.5 for chance, _ in pairs]
        found = heads[kind]
        assert found["all"]["documents"] == len(pairs) == 4
        assert 0 < sum(hits) < 4
        assert found["all"]["accuracy"]["head"] == pytest.approx(np.mean(hits), abs=1e-4)
        assert found["abstained"] == pytest.approx(1 - np.mean(sure), abs=1e-4)
        assert found["sure"]["documents"] == sum(sure)
        recalls = {row["class"]: row for row in found["classes"]}
        for number, name in enumerate(TONES if kind == "tone" else FIELDS):
            of_class = [hit for hit, (_, label) in zip(hits, pairs, strict=True) if label == number]
            assert recalls[name]["documents"] == len(of_class)
            expected = pytest.approx(np.mean(of_class), abs=1e-4) if of_class else None
            assert recalls[name]["recall"]["head"] == expected
    sure_anywhere = [chances.max() >= 0.5 for d in asked for chances in slow_heads(inputs, d.text).values()]
    assert 0 < sum(sure_anywhere) < len(sure_anywhere)


def test_baselines_learn_from_the_train_split_and_judge_the_same_documents(store: Store, make: Make) -> None:
    heads = metrics_of(run(store, make()))["heads"]
    assert (heads["tone"]["majority"], heads["field"]["majority"]) == ("neutral", "law")
    assert heads["tone"]["all"]["accuracy"]["majority"] == 0.5
    # Two documents of law, one of recipes, and one of software, which the train split does not have.
    assert heads["field"]["all"]["accuracy"]["majority"] == 0.5
    rows = {row["class"]: row for row in heads["tone"]["classes"]}
    assert (rows["neutral"]["train_documents"], rows["questioning"]["train_documents"]) == (20, 9)
    assert rows["questioning"]["recall"]["bag_of_words"] == rows["neutral"]["recall"]["bag_of_words"] == 1.0
    assert rows["emphatic"]["recall"]["bag_of_words"] == 0.0
    assert rows["formal"]["recall"] == {"head": None, "bag_of_words": None}


def test_heads_are_asked_again_about_stripped_text(store: Store, make: Make) -> None:
    inputs = make()
    heads = metrics_of(run(store, inputs))["heads"]
    texts = [document.text for document in DOCUMENTS["test-00000"] if document.id in "abce"]
    hits = []
    for text, label in zip(texts, [0, 1, 2, 0], strict=True):
        encoder = Tokenizer.from_file(str(inputs["tokenizer"].open(inputs["tokenizer"].file("tokenizer"))))
        read = encoder.decode(encoder.encode(text).ids[:97])
        was_cut = len(encoder.encode(text).ids) >= 97
        stripped = read.replace("?", ".").replace("!", ".")
        assert not was_cut or len(encoder.encode(stripped).ids) >= 97  # so that no end of text follows in either
        hits.append(slow_heads(inputs, stripped)["tone"].argmax() == label)
    assert heads["tone"]["stripped"]["documents"] == heads["tone"]["enough"]["documents"] == 4
    assert heads["tone"]["stripped"]["accuracy"]["head"] != heads["tone"]["all"]["accuracy"]["head"]
    assert heads["tone"]["stripped"]["accuracy"]["head"] == pytest.approx(np.mean(hits), abs=1e-4)


def test_report_shows_both_heads_with_their_baselines(store: Store, make: Make) -> None:
    artifact = run(store, make())
    report, tables = report_of(artifact), json.loads(artifact.report(TABLES) or b"")
    assert "## Tone and field heads" in report
    assert "The labels are weak" in report
    assert "No document, here or in training, has the label" in report
    assert "`formal`" in report.partition("has the label")[2].partition("\n")[0]
    assert "leave one subset out" in report
    assert tables["Head for the tone, beside its baselines"][0]["number"] == 4
    assert "accuracy: bag of words" in tables["Head for the field, beside its baselines"][0]


def test_untrained_heads_are_said_and_not_measured(store: Store, make: Make) -> None:
    artifact = run(store, make(has_trained_heads=False))
    assert metrics_of(artifact)["heads"] is None
    assert "packed without probe tokens" in report_of(artifact)
    assert "### Tone" not in report_of(artifact)


def test_models_without_heads_and_context_have_no_such_sections(store: Store, make: Make) -> None:
    for shape in (ROPE, changed(SHAPE, n_tones=0, n_fields=0, context_rank=0)):
        artifact = run(store, make(shape, has_trained_heads=False), force=True, resume=False)
        assert not {"heads", "context"} & metrics_of(artifact).keys()
        assert [file.role for file in artifact.manifest.files] == ["metrics"]
        assert artifact.report("context.html") is None
        assert "heads" not in report_of(artifact)
        assert "Context" not in report_of(artifact)


def test_context_layer_is_measured_and_drawn(store: Store, make: Make) -> None:
    idle = run(store, make(), force=True)
    context = metrics_of(idle)["context"]
    assert (context["documents"], context["min_tokens"]) == (5, 32)
    assert (context["influence"], context["acts"]) == (0.0, False)
    assert len(context["spearman"]["importance"]) == len(context["largest_gain"]["write"]) == 1
    assert "the layer does not act" in report_of(idle)
    page = (idle.report("context.html") or b"").decode()
    assert "Scores are predictions only" in page
    assert "<span>The</span>" in page

    acting = run(store, make(gain=0.4), force=True)
    assert metrics_of(acting)["context"]["largest_gain"] == {"drop": [0.0], "decay": [0.4], "write": [0.0]}
    assert "The largest gain of all is 0.4000" in report_of(acting)
    assert "does not act" not in report_of(acting)


def test_evaluation_of_a_world_model_is_byte_identical_when_repeated(store: Store, make: Make) -> None:
    inputs = make()
    first = run(store, inputs)
    second = run(store, inputs, force=True, resume=False)
    assert first.content_digest == second.content_digest
    for role in ("report.md", "context.html", TABLES):
        assert first.report(role) == second.report(role)


def test_batch_size_does_not_change_what_the_heads_say(store: Store, make: Make) -> None:
    inputs = make()
    one, other = run(store, inputs), run(store, inputs, changed(CONFIG, batch_tokens=1))
    assert metrics_of(one)["heads"] == metrics_of(other)["heads"]


def test_held_out_text_without_labels_is_no_data(store: Store, make: Make) -> None:
    documents = {**DOCUMENTS, "test-00000": [Document("a", "notes", "lorem ipsum dolor sit amet " * 20)]}
    artifact = run(store, make(documents=documents))
    heads = metrics_of(artifact)["heads"]
    assert heads["tone"]["all"] == {
        "documents": 0,
        "accuracy": {"head": None, "majority": None, "bag_of_words": None},
        "macro_f1": {"head": None, "majority": None, "bag_of_words": None},
    }
    assert "No scored document has a label: no data." in report_of(artifact)


def test_train_split_without_labels_has_no_baselines(store: Store, make: Make) -> None:
    documents = {**DOCUMENTS, "train-00000": [Document("t", "notes", "lorem ipsum " * 50)], "train-00001": []}
    artifact = run(store, make(documents=documents))
    assert set(metrics_of(artifact)["heads"]["field"]["all"]["accuracy"]) == {"head"}
    assert "No training document has a label" in report_of(artifact)


def test_lost_manifest_of_the_packed_sequences_is_refused(store: Store, make: Make) -> None:
    inputs = make()
    store.backend.delete(f"artifacts/pack/{inputs['model'].manifest.inputs['sequences'].key}/manifest.json")
    with pytest.raises(InputError, match=r"the labels of train/.* but pack/0123456789abcdef"):
        run(store, inputs)


def test_scores_are_those_of_a_confusion_matrix_by_hand() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 3])
    told = np.array([0, 0, 0, 1, 1, 0, 2])
    # Class 0: 3 of 4 found, 4 named. Class 1: 1 of 2 found, 2 named. Class 3: none found.
    macro = (2 * 3 / (4 + 4) + 2 * 1 / (2 + 2) + 0) / 3
    assert scores(labels, {"head": told}) == {
        "documents": 7,
        "accuracy": {"head": round(4 / 7, 4)},
        "macro_f1": {"head": round(macro, 4)},
    }
    rows = class_rows("abcd", labels, {"head": told, "majority": told}, np.array([0, 2, 2]))
    assert [row["recall"] for row in rows] == [{"head": 0.75}, {"head": 0.5}, {"head": None}, {"head": 0.0}]
    assert [(row["train_documents"], row["documents"]) for row in rows] == [(1, 4), (0, 2), (2, 0), (0, 1)]


def test_train_sample_is_spread_over_shards_and_places(store: Store, tmp_path: Path) -> None:
    documents = {
        f"train-{shard:05d}": [Document(f"{shard}:{n}", f"s{shard}", "x" * 50) for n in range(100)]
        for shard in range(40)
    }
    artifact = corpus(store, tmp_path, {**documents, "test-00000": [Document("t", "s", "y")]})
    sample, shards = read_train_sample(artifact, 320, 9)
    places = [int(document.id.partition(":")[2]) for document in sample]
    assert shards == len({document.subset for document in sample}) == 16
    assert len({document.id for document in sample}) == 320
    assert {document.text for document in sample} == {"x" * 9}
    assert 40 < np.mean(places) < 60
    assert read_train_sample(artifact, 320, 9)[0] == sample
    assert len(read_train_sample(artifact, 10_000, 9)[0]) == 1600
