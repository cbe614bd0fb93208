"""Documents with the labels that training gave them, for whoever checks classification heads."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from model.pretrained.trained_model import TrainedModel
from storage.artifacts.store import Artifact
from storage.errors import InputError
from storage.formats.probes import MIN_PROBED_TOKENS, NO_LABEL, PROBE_TOKENS
from tasks.evaluate.held_out import read_train_sample
from tasks.labels.field import FieldName, field_label
from tasks.labels.probes import TONE_TOKENS, document_tone, label_array

Classes = NDArray[np.int64]
"""A class per document."""

TRAIN_DOCUMENTS = 5000
"""Documents of the train split that the baselines learn from."""

TOKEN_CHARACTERS = 8
"""Characters of a training document that are read for each token wanted of it."""


@dataclass(frozen=True)
class LabelledDocuments:
    """Documents as the heads and the baselines read them, with their labels."""

    read: list[list[int]]
    """Tokens before the probes, at most as many as fit into the model's length with them: an EOT, the document's,
    and if those are all, an EOT again."""
    texts: list[str]
    """The text of these tokens."""
    labels: dict[str, Classes]
    """Of the tone and of the field; NO_LABEL where there is none."""

    def labelled(self, kind: str) -> "LabelledDocuments":
        """Return those that have a label of this kind."""
        return self.chosen(self.labels[kind] != NO_LABEL)

    def chosen(self, mask: NDArray[np.bool_]) -> "LabelledDocuments":
        """Return those where the mask is true. Shapes: mask (documents,)."""
        numbers = np.flatnonzero(mask)
        return LabelledDocuments(
            [self.read[number] for number in numbers],
            [self.texts[number] for number in numbers],
            {kind: labels[numbers] for kind, labels in self.labels.items()},
        )


def packed_field_map(model: Artifact) -> Mapping[str, FieldName | None]:
    """Return how the pack stage mapped collections to fields for the training of this model.

    It is not an input of evaluate, but the manifest of the train artifact names the sequences it read.
    Raises: InputError if their manifest is gone.
    """
    used = model.manifest.inputs.get("sequences")
    packed = model.store.manifest(used.stage, used.key) if used else None
    if packed is None:
        name = f"{used.stage}/{used.key}" if used else "packed sequences"
        raise InputError(
            f"the labels of {model.ref} must be known to evaluate its heads, but {name}, which it was trained on, "
            f"is not in the store; run the recipe again with `pile run`, which packs what is missing"
        )
    field_map: Mapping[str, FieldName | None] = packed.config.get("field_map", {})
    return field_map


def read_tokens(trained: TrainedModel) -> int:
    """Return how many tokens of a document the heads can read: the model's length less the probes."""
    return trained.description.model.max_seq_len - PROBE_TOKENS


def label_documents(
    trained: TrainedModel, documents: Iterable[tuple[str, list[int]]], field_map: Mapping[str, FieldName | None]
) -> LabelledDocuments:
    """Return the documents that are long enough, given as subset and tokens without EOT, with their labels."""
    room = read_tokens(trained)
    read, texts, tones, fields = [], [], [], []
    for subset, tokens in documents:
        document = [trained.eot_id, *tokens, trained.eot_id]
        if len(document) < MIN_PROBED_TOKENS:
            continue
        read.append(document[:room])
        texts.append(trained.encoder.decode(tokens[: room - 1]))
        tones.append(document_tone(trained.encoder, tokens))
        fields.append(field_label(subset, field_map))
    labels = {"tone": label_array(tones).astype(np.int64), "field": label_array(fields).astype(np.int64)}
    return LabelledDocuments(read, texts, labels)


def label_train_sample(
    trained: TrainedModel, corpus: Artifact, field_map: Mapping[str, FieldName | None]
) -> tuple[LabelledDocuments, int]:
    """Return labelled documents of the train split, see `read_train_sample`, and the number of shards read."""
    characters = TOKEN_CHARACTERS * max(TONE_TOKENS, read_tokens(trained))
    documents, shards = read_train_sample(corpus, TRAIN_DOCUMENTS, characters)
    ids = encode_texts(trained.encoder, [document.text for document in documents])
    subsets = [document.subset for document in documents]
    return label_documents(trained, zip(subsets, ids, strict=True), field_map), shards


def encode_texts(encoder: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Return the tokens of each text, without EOT."""
    return [encoding.ids for encoding in encoder.encode_batch(list(texts), add_special_tokens=False)]
