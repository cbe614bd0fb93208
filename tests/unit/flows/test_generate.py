"""`pile generate` on a small trained and published model: what it prints is what the model generates."""

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from flows.command.main import main
from flows.command.models.generate import decode_pieces
from flows.command.parser import build_parser
from model.evaluation.classify import classify
from model.export.saving import save_weights
from model.families.base import ModelConfig
from model.families.gpt2.config import GPT2Config
from model.families.registry import build_model
from model.families.world.presets import WORLD_1M
from model.generation.generate import generate
from model.layers.language_model import LanguageModel
from model.pretrained.folder import suppressed_ids, write_folder
from model.pretrained.weights import ModelDescription, save_description
from storage.artifacts.records import Run, RunStage, now
from storage.artifacts.store import Artifact, Store
from storage.artifacts.writer import ArtifactWriter
from storage.config import changed
from storage.errors import InputError
from storage.formats.tokens import EOT, FIELD, TONE
from storage.registry import load
from tasks.core.stopping import Terminated
from tasks.labels.field import FIELDS
from tasks.labels.tone import TONES

SHAPES: dict[str, ModelConfig] = {
    "world": changed(WORLD_1M, d_model=32, num_experts=4, vocab_size=320, max_seq_len=160),
    "gpt2": GPT2Config(vocab_size=320, n_layers=1, n_heads=2, d_model=16, max_seq_len=40),
}
KEY = "1" * 16


def make_encoder() -> Tokenizer:
    encoder = Tokenizer(models.BPE())
    encoder.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    encoder.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=[EOT, TONE, FIELD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    encoder.train_from_iterator(["the quick brown fox jumps over the lazy dog " * 5], trainer)
    encoder.encode_special_tokens = True
    return encoder


ENCODER = make_encoder()
USED = ENCODER.get_vocab_size()
EOT_ID, TONE_ID, FIELD_ID = (ENCODER.token_to_id(token) for token in (EOT, TONE, FIELD))


def make_network(name: str) -> LanguageModel:
    torch.set_num_threads(1)
    torch.manual_seed(3)
    network = build_model(SHAPES[name]).eval()
    with torch.no_grad():  # clear preferences
        next(network.parameters()).mul_(20)
    return network


def commit(store: Store, stage: str, part: str, files: dict[str, Path], inputs: dict[str, Artifact]) -> Artifact:
    writer = ArtifactWriter(store, stage, KEY)
    nothing: dict[str, Any] = {"config": {}, "sources": {}, "recipe": {}, "libraries": {}}
    committed = writer.commit_folder(part, files["folder"]) if "folder" in files else writer.commit(part, files)
    return writer.publish(
        [committed], version=1, run_id="r", code_commit="", started="", seconds=0.0, inputs=inputs, **nothing
    )


@pytest.fixture(params=SHAPES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def store(tmp_path: Path, name: str) -> Store:
    """A run of which tokenizer, model, evaluation and published folder are left."""
    store, network = Store(str(tmp_path / "store")), make_network(name)
    vocabulary = tmp_path / "tokenizer.json"
    ENCODER.save(str(vocabulary))
    for folder in (tmp_path / "published", tmp_path / "huggingface"):
        folder.mkdir()
        write_folder(network, vocabulary, EOT_ID, USED, folder, has_trained_heads=True)
    tokenizer = commit(store, "train-tokenizer", "tokenizer", {"tokenizer": vocabulary}, {})
    save_weights(network.state_dict(), tmp_path / "model.safetensors")
    description = ModelDescription(
        model=SHAPES[name], tokenizer_digest=tokenizer.content_digest, steps=2, has_trained_heads=True
    )
    save_description(description, tmp_path / "model.json")
    files = {"weights": tmp_path / "model.safetensors", "model-config": tmp_path / "model.json"}
    model = commit(store, "train", "final", files, {"tokenizer": tokenizer})
    both = {"model": model, "tokenizer": tokenizer}
    (tmp_path / "metrics.json").write_text("{}")
    commit(store, "evaluate", "evaluation", {"metrics": tmp_path / "metrics.json"}, both)
    commit(store, "publish", "huggingface", {"folder": tmp_path / "huggingface"}, both)
    stages = tuple(
        RunStage(stage=s, key=KEY, state="done") for s in ("train-tokenizer", "train", "evaluate", "publish")
    )
    fields: dict[str, Any] = {"recipe_name": "demo", "recipe": {}, "target": "publish", "host": "h"}
    store.write_run(Run(run_id="run-1", state="done", stages=stages, started=now(), **fields))
    return store


def standard_input(data: bytes) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(data))


class Interrupting(io.RawIOBase):
    """A standard input during which the user presses Ctrl-C."""

    def __init__(self, stop: Callable[[], None]) -> None:
        self.stop = stop

    def readable(self) -> bool:
        return True

    def readinto(self, _: object) -> int:
        self.stop()
        return 0


def call(store: Store, *arguments: str) -> int:
    options = build_parser().parse_args(["generate", *arguments, "--store", store.url])
    code: int = load(options.verb.reference)(options)
    return code


def wanted(name: str, prompts: list[str], new_tokens: int, **options: Any) -> list[list[int]]:
    """What the model itself appends to each prompt, up to the end of text."""
    network = make_network(name)
    ids = [[EOT_ID, *ENCODER.encode(prompt, add_special_tokens=False).ids] for prompt in prompts]
    suppress = suppressed_ids(ENCODER, USED, 320)
    found = generate(network, ids, new_tokens, stop_tokens=EOT_ID, suppress_tokens=suppress, **options)
    new = found[:, max(len(row) for row in ids) :].tolist()
    return [row[: row.index(EOT_ID)] if EOT_ID in row else row for row in new]


def decoded(ids: list[int]) -> str:
    return str(ENCODER.decode(ids, skip_special_tokens=False))


@pytest.mark.parametrize(
    "what", [(), ("train",), (f"train/{KEY}",), ("evaluate",), ("publish",), (f"publish/{KEY}",)]
)
def test_every_name_of_a_model_leads_to_its_text(
    store: Store, name: str, what: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(store, *what, "--prompt", "the quick", "--max-new-tokens", "20", "--greedy") == 0
    assert capsys.readouterr().out == "the quick" + decoded(wanted(name, ["the quick"], 20)[0]) + "\n"


def test_folder_of_a_published_model_needs_no_store(
    store: Store, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, nowhere = tmp_path / "published", Store(str(tmp_path / "nowhere"))
    assert call(nowhere, str(folder), "--prompt", "fox", "--max-new-tokens", "9", "--greedy") == 0
    assert capsys.readouterr().out == "fox" + decoded(wanted(name, ["fox"], 9)[0]) + "\n"


@pytest.mark.parametrize("name", ["world"], indirect=True)
def test_options_reach_the_model(store: Store, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = [
        "--temperature",
        "1.3",
        "--top-k",
        "9",
        "--top-p",
        "0.7",
        "--repetition-penalty",
        "1.4",
        "--seed",
        "6",
    ]
    same: dict[str, Any] = {
        "do_sample": True, "temperature": 1.3, "top_k": 9, "top_p": 0.7, "repetition_penalty": 1.4, "seed": 6,
    }  # fmt: skip
    assert call(store, "--prompt", "dog", "--max-new-tokens", "100", "--kv-budget", "70", *options) == 0
    assert capsys.readouterr().out == "dog" + decoded(wanted(name, ["dog"], 100, kv_budget=70, **same)[0]) + "\n"
    assert call(store, "--prompt", "dog", "--max-new-tokens", "100", "--no-cache", *options) == 0
    assert capsys.readouterr().out == "dog" + decoded(wanted(name, ["dog"], 100, **same)[0]) + "\n"


def test_several_prompts_are_printed_one_after_the_other(
    store: Store, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", standard_input(b"over the"))
    prompts = ["the lazy dog jumps", "", "over the"]
    given = ["--prompt", "the lazy dog jumps", "", "--prompt", "-", "--max-new-tokens", "15", "--seed", "2"]
    assert call(store, *given) == 0
    texts = wanted(name, prompts, 15, do_sample=True, temperature=0.8, top_p=0.95, seed=2)
    shown = [
        f"--- text {i + 1} of 3\n{p}{decoded(t)}\n" for i, (p, t) in enumerate(zip(prompts, texts, strict=True))
    ]
    assert capsys.readouterr().out == "".join(shown)

    monkeypatch.setattr("sys.stdin", standard_input(b"over the"))
    assert call(store, *given, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [(row["prompt"], row["text"], row["tokens"]) for row in found] == [
        (prompt, decoded(text), len(text)) for prompt, text in zip(prompts, texts, strict=True)
    ]
    assert [row["ended"] for row in found] == [len(text) < 15 for text in texts]


@pytest.mark.parametrize("name", ["world"], indirect=True)
def test_tone_and_field_of_a_text_are_those_of_the_heads(
    store: Store, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(store, "--prompt", "the fox", "--max-new-tokens", "0", "--classify", "--json") == 0
    [row] = json.loads(capsys.readouterr().out)
    ids = torch.tensor([[EOT_ID, *ENCODER.encode("the fox").ids]])
    wanted = classify(make_network(name), ids, {"tone": TONE_ID, "field": FIELD_ID}, eot_id=EOT_ID)
    assert list(row["tone"].items()) == [
        (tone, pytest.approx(float(p), abs=1e-4)) for tone, p in zip(TONES, wanted["tone"][0], strict=True)
    ]
    assert list(row["field"].items()) == [
        (field, pytest.approx(float(p), abs=1e-4)) for field, p in zip(FIELDS, wanted["field"][0], strict=True)
    ]
    assert call(store, "--prompt", "the fox", "--max-new-tokens", "3", "--classify") == 0
    shown = capsys.readouterr().out
    assert all(label in shown for label in (*TONES, *FIELDS))


@pytest.mark.parametrize("name", ["gpt2"], indirect=True)
def test_default_length_fits_the_learned_positions(
    store: Store, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(store, "--prompt", "the fox", "--greedy", "--json") == 0
    [row] = json.loads(capsys.readouterr().out)
    length = 1 + len(ENCODER.encode("the fox").ids)
    assert row["tokens"] == 40 - length or row["ended"]


@pytest.mark.parametrize("name", ["gpt2"], indirect=True)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-new-tokens", "100"], "max_seq_len=40 together"),
        (["--max-new-tokens", "100"], "lower --max-new-tokens"),
        (["--max-new-tokens", "-1"], "--max-new-tokens must be"),
        (["--top-p", "2"], "--top-p must be"),
        (["--temperature", "-1"], "--temperature must be"),
        (["--temperature", "1e-320"], "--temperature must be a number from 1e-06 on"),
        (["--kv-budget", "5"], "--kv-budget must be .* at least 69, or no budget"),
        (["--kv-budget", "80", "--no-cache"], "leave out one of the two"),
        (["--prompt", "dog", "\udcff"], r"UTF-8, found other bytes in --prompt '\\udcff'"),
        (["--classify"], "classification heads"),
        (["train-tokenizer"], "must have been made from a model"),
        (["train/" + "2" * 16], "no finished artifact"),
    ],
)
def test_what_cannot_be_is_refused(store: Store, arguments: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(store, *arguments, "--prompt", "dog")


@pytest.mark.parametrize("name", ["world"], indirect=True)
def test_heads_that_were_not_trained_are_refused_before_a_text_is_made(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "published"
    assert call(store, str(folder), "--prompt", "fox", "--max-new-tokens", "1", "--classify") == 0
    config = json.loads((folder / "config.json").read_text())
    assert config.pop("has_trained_heads") is True
    capsys.readouterr()
    for fields in (config, {**config, "has_trained_heads": False}):
        (folder / "config.json").write_text(json.dumps(fields))
        with pytest.raises(InputError, match="whose heads were trained"):
            call(store, str(folder), "--prompt", "fox", "--max-new-tokens", "1", "--classify")
        assert not capsys.readouterr().out
        assert call(store, str(folder), "--prompt", "fox", "--max-new-tokens", "1") == 0
        capsys.readouterr()


@pytest.mark.parametrize("name", ["gpt2"], indirect=True)
def test_standard_input_that_is_not_utf_8_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", standard_input(b"over \xff"))
    with pytest.raises(InputError, match="UTF-8, found other bytes in standard input"):
        call(store, "--prompt", "-")


@pytest.mark.parametrize("name", ["gpt2"], indirect=True)
@pytest.mark.parametrize(("stopped", "said"), [(KeyboardInterrupt, "interrupted"), (Terminated, "cancelled")])
def test_interrupted_generation_promises_nothing(
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stopped: type[BaseException],
    said: str,
) -> None:
    def stop(*_: object) -> None:
        raise stopped

    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(Interrupting(stop))))
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit):
        main(["generate", "--prompt", "-", "--store", store.url])
    assert capsys.readouterr().err.splitlines()[1:] == [f"pile: {said}"]


@pytest.mark.parametrize("name", ["gpt2"], indirect=True)
def test_folder_without_a_model_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config\.json"):
        call(store, str(tmp_path))


@settings(max_examples=150, deadline=None)
@given(
    text=st.text(st.sampled_from("aé漢🐜\N{COMBINING ACUTE ACCENT}\N{REPLACEMENT CHARACTER} "), max_size=12),
    broken=st.lists(st.integers(0, USED - 1), max_size=6),
    sizes=st.lists(st.integers(1, 3), min_size=60, max_size=60),
)
def test_pieces_are_the_text_and_end_where_characters_do(text: str, broken: list[int], sizes: list[int]) -> None:
    whole = [token for letter in text for token in ENCODER.encode(letter).ids]
    for ids in (whole, [*whole, *broken], [*broken, *whole]):
        grown: list[int] = []

        def steps(ids: list[int] = ids, grown: list[int] = grown) -> Iterator[None]:
            for size in sizes:
                if len(grown) == len(ids):
                    return
                grown += ids[len(grown) : len(grown) + size]
                yield

        pieces = list(decode_pieces(ENCODER, grown, steps()))
        assert grown == ids
        assert "".join(pieces) == decoded(ids)
        if ids is whole and "\N{REPLACEMENT CHARACTER}" not in text:
            assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)
