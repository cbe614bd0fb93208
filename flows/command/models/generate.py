"""The verb that continues texts with a trained or published model."""

import argparse
import dataclasses
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from flows.command.models.choosing import Choice, choose_model
from flows.command.output import print_json
from flows.command.store.finding import existing_store
from flows.runs.request import store_option
from flows.tables import text_table
from model.evaluation.classify import classify
from model.generation.generate import stream
from model.layers.device import choose_device
from model.layers.language_model import LanguageModel
from model.pretrained.folder import has_trained_heads, load_published, suppressed_ids
from model.pretrained.trained_model import open_trained
from model.pretrained.weights import MODEL_CONFIG
from storage.artifacts.store import Artifact, Store
from storage.errors import InputError
from storage.formats.tokens import EOT
from tasks.labels.classes import CLASSES
from tasks.labels.probes import probe_ids

NEW_TOKENS = 128
"""Tokens that are generated if nobody says how many, fewer where a model has no positions for them."""


OPTIONS = re.compile(r"\b(max_new_tokens|temperature|top_k|top_p|repetition_penalty|kv_budget)\b")
"""Parameters of the model's `generate` that the user gives as options."""


@dataclass(frozen=True)
class LoadedModel:
    """A model and the meaning of its tokens."""

    model: LanguageModel
    encoder: Tokenizer
    eot_id: int
    used_vocab: int
    has_trained_heads: bool


@dataclass
class Text:
    """One prompt and what follows it."""

    prompt: str
    ids: list[int]
    """End of text, as before every document in training, then the prompt."""
    new: list[int]
    ended: bool = False
    """Whether the model has ended the text itself."""


def generate(options: argparse.Namespace) -> int:
    """Print each prompt with its continuation, the first one as it comes into being."""
    loaded, choice = _open_model(options)
    choice.say()
    probes = _probe_ids(loaded) if options.classify else None
    if options.no_cache and options.kv_budget is not None:
        raise InputError("--kv-budget needs the cache that --no-cache does without; leave out one of the two")
    prompts = [_read_prompt(prompt) for prompt in options.prompt or [""]]
    encode = loaded.encoder.encode
    texts = [Text(p, [loaded.eot_id, *encode(p, add_special_tokens=False).ids], []) for p in prompts]
    try:
        steps = _stream(loaded, texts, options)
        if options.json:
            for _ in steps:
                pass
        else:
            _print_texts(loaded.encoder, texts, steps)
        labels = [_classify(loaded, text, probes) for text in texts] if probes else []
    except ValueError as error:  # of a prompt or an option; the model says what must hold
        raise InputError(OPTIONS.sub(lambda name: f"--{name[0].replace('_', '-')}", str(error))) from error
    if options.json:
        source = {"source": dataclasses.asdict(choice)}
        print_json([{**source, **_to_json(loaded.encoder, t, *labels[i : i + 1])} for i, t in enumerate(texts)])
        return 0
    for number, label in enumerate(labels):
        for name, classes in label.items():
            title = f"{name} of text {number + 1}" if len(labels) > 1 else name
            print(f"\n{text_table([{title: c, 'probability': p} for c, p in classes.items()])}")
    return 0


def _read_prompt(prompt: str) -> str:
    """Return a prompt, or the standard input for `-`. Raises: InputError if it is not UTF-8."""
    try:
        # Bytes of an argument that are no text come as surrogates, which fail again.
        return (sys.stdin.buffer.read() if prompt == "-" else prompt.encode()).decode()
    except UnicodeError as error:
        source = "standard input" if prompt == "-" else f"--prompt {prompt!a}"
        raise InputError(f"a prompt must be text in UTF-8, found other bytes in {source} ({error})") from None


def _probe_ids(loaded: LoadedModel) -> dict[str, int]:
    """Return the ids of the tokens at which the heads read. Raises: InputError if they cannot tell anything."""
    if not loaded.model.config.classes():
        raise InputError(
            "--classify needs a model with classification heads, found one without; train a model of a family "
            "that has them, such as `pile run world-1m`"
        )
    if not loaded.has_trained_heads:
        raise InputError(
            "--classify needs a model whose heads were trained, found one that is not known to have such; train "
            "it with pack.probe_tokens=true, and publish it again if it is a folder"
        )
    return probe_ids(loaded.encoder).ids()


def _open_model(options: argparse.Namespace) -> tuple[LoadedModel, Choice]:
    """Return the model that the user names, and where it comes from: a published folder, or one of the store."""
    what = options.what
    if what and (Path(what) / "config.json").is_file():
        return _open_folder(Path(what)), Choice(str(Path(what)))
    if what and Path(what).is_dir():
        raise InputError(f"a published model must be a folder with config.json, found none in {what}")
    store = existing_store(options.store)
    artifact = choose_model(store, what)
    if published := artifact.files("config.json"):
        return _open_folder(artifact.open_folder(published[0].part)), Choice.of(artifact)
    model = artifact if artifact.files(MODEL_CONFIG) else _input_of(store, artifact, "model")
    trained = open_trained(model, _input_of(store, model, "tokenizer"), "auto")
    loaded = LoadedModel(
        trained.network, trained.encoder, trained.eot_id, trained.used_vocab, trained.description.has_trained_heads
    )
    return loaded, Choice.of(model)


def _input_of(store: Store, artifact: Artifact, role: str) -> Artifact:
    ref = artifact.manifest.inputs.get(role)
    found = store.find(ref.stage, ref.key) if ref is not None else None
    if found is None:
        raise InputError(
            f"{artifact.ref} must have been made from a {role} that is in {store.url}, found none; name an "
            f"artifact of train or publish, see `pile ls{store_option(store)}`"
        )
    return found


def _open_folder(folder: Path) -> LoadedModel:
    if not (folder / "tokenizer.json").is_file():
        raise InputError(f"a published model must have its tokenizer.json, found none in {folder}")
    encoder = Tokenizer.from_file(str(folder / "tokenizer.json"))
    eot_id = encoder.token_to_id(EOT)
    if eot_id is None:
        raise InputError(f"the tokenizer in {folder} must have {EOT}, which begins a text; it has no such token")
    encoder.encode_special_tokens = True
    used_vocab = max(encoder.get_vocab(with_added_tokens=True).values()) + 1
    model = load_published(folder).to(choose_device("auto"))
    return LoadedModel(model, encoder, eot_id, used_vocab, has_trained_heads(folder))


def _stream(loaded: LoadedModel, texts: Sequence[Text], options: argparse.Namespace) -> Iterator[None]:
    """Return an iterator that adds a token to each text that has not ended; prompts are checked at once."""
    model, new_tokens = loaded.model, options.max_new_tokens
    if new_tokens is None:
        longest = max(len(text.ids) for text in texts)
        room = max(1, model.config.max_seq_len - longest)
        new_tokens = min(NEW_TOKENS, room) if model.config.learned_positions else NEW_TOKENS
    steps = stream(
        model,
        [text.ids for text in texts],
        new_tokens,
        do_sample=not options.greedy and options.temperature != 0,
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        repetition_penalty=options.repetition_penalty,
        stop_tokens=loaded.eot_id,
        use_cache=not options.no_cache,
        seed=options.seed,
        kv_budget=options.kv_budget,
        suppress_tokens=suppressed_ids(loaded.encoder, loaded.used_vocab, model.config.vocab_size),
    )
    return _collected(texts, steps, loaded.eot_id)


def _collected(texts: Sequence[Text], steps: Iterator[Any], eot_id: int) -> Iterator[None]:
    for tokens in steps:
        for text, token in zip(texts, tokens.tolist(), strict=True):
            if token == eot_id:
                text.ended = True
            elif not text.ended:
                text.new.append(token)
        yield


def _print_texts(encoder: Tokenizer, texts: Sequence[Text], steps: Iterator[None]) -> None:
    for number, text in enumerate(texts):
        if len(texts) > 1:
            print(f"--- text {number + 1} of {len(texts)}")
        print(text.prompt, end="", flush=True)
        # The rows grow together: while the first is printed the others come into being, too.
        for piece in decode_pieces(encoder, text.new, steps):
            print(piece, end="", flush=True)
        print()


def decode_pieces(encoder: Tokenizer, ids: Sequence[int], steps: Iterator[None]) -> Iterator[str]:
    """Yield the text of ids, which grow with each step, in pieces that end where a character does.

    Tokens are bytes, so a character may need several; one that never becomes whole is given out at the end.
    """
    begin = 0
    while True:
        more = next(steps, False) is None
        piece = encoder.decode(list(ids[begin:]), skip_special_tokens=False)
        if piece and not (more and piece.endswith("\N{REPLACEMENT CHARACTER}")):
            begin = len(ids)
            yield piece
        if not more:
            return


def _classify(loaded: LoadedModel, text: Text, probes: dict[str, int]) -> dict[str, dict[str, float]]:
    """Return the probabilities of the whole text's classes by kind; where it was cut, it has no end of text."""
    whole = text.ended or not text.new
    ids = torch.tensor([text.ids + text.new])  # led by the end-of-text token, as documents are in training
    found = classify(loaded.model, ids, probes, eot_id=loaded.eot_id if whole else None)
    return {kind: _named(CLASSES.get(kind, ()), values[0].tolist()) for kind, values in found.items()}


def _named(classes: Sequence[str], values: list[float]) -> dict[str, float]:
    names = classes if len(classes) == len(values) else [str(number) for number in range(len(values))]
    return {name: round(value, 4) for name, value in zip(names, values, strict=True)}


def _to_json(encoder: Tokenizer, text: Text, labels: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "prompt": text.prompt,
        "text": encoder.decode(text.new, skip_special_tokens=False),
        "tokens": len(text.new),
        "ended": text.ended,
        **(labels or {}),
    }
