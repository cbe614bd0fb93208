"""Open a train artifact together with its tokenizer: what evaluation, publishing and generation begin with."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from tokenizers import Tokenizer

from model.layers.device import choose_device
from model.layers.language_model import LanguageModel
from model.pretrained.weights import MODEL_CONFIG, WEIGHTS, ModelDescription, load_description, load_model
from storage.artifacts.store import Artifact
from storage.errors import Fault, InputError
from storage.formats.tokens import EOT, TOKENIZER


@dataclass(frozen=True)
class TrainedModel:
    """A trained model in memory and what its tokens mean."""

    network: LanguageModel
    description: ModelDescription
    encoder: Tokenizer
    """Treats special tokens inside a text as plain text, as the training data was encoded."""
    eot_id: int
    used_vocab: int
    """Ids of the tokenizer; the model may have more, which pad its embedding and mean nothing."""


def open_trained(
    model: Artifact, tokenizer: Artifact, device: Literal["auto", "cpu", "mps", "cuda"] = "cpu"
) -> TrainedModel:
    """Load the weights on a device and the tokenizer.

    Raises: InputError if the tokenizer is not the one that the model was trained with, or for a device that this
        machine lacks; Fault for damaged files.
    """
    described = model.open(model.file(MODEL_CONFIG))
    description = load_description(described)
    if description.tokenizer_digest != tokenizer.content_digest:
        raise InputError(
            f"the tokenizer must be the one that {model.ref} was trained with (content digest "
            f"{description.tokenizer_digest[:16]}), found {tokenizer.ref} with {tokenizer.content_digest[:16]}; "
            f"run `pile run` so that all stages follow from one tokenizer"
        )
    encoder = Tokenizer.from_file(str(tokenizer.open(tokenizer.file(TOKENIZER))))
    eot_id = encoder.token_to_id(EOT)
    used_vocab = max(encoder.get_vocab(with_added_tokens=True).values()) + 1
    if eot_id is None or used_vocab > description.model.vocab_size:
        raise Fault(
            f"{tokenizer.ref} must have {EOT} and ids below vocab_size={description.model.vocab_size} of "
            f"{model.ref}, found id {eot_id} for it and {used_vocab - 1} as the largest; build both again"
        )
    encoder.encode_special_tokens = True
    network = load_model(model.open(model.file(WEIGHTS)), described, str(choose_device(device)))
    return TrainedModel(network, description, encoder, eot_id, used_vocab)


@contextmanager
def fixed_threads(threads: int) -> Iterator[None]:
    """Let torch use this many CPU threads (0: as many as it likes): sums depend on how many there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
