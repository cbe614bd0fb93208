"""How well classification heads tell the tone and the field of held-out documents, beside two baselines.

Every held-out document of MIN_PROBED_TOKENS or more is read as in training: its beginning, EOT if that is all of
it, then the two probe tokens. What the heads say there is compared with labels by the rules that labelled the
training data. The same documents, cut at the same token, are given to the baselines, and all three are asked again
without what gives a label away: the field without markup, the tone without question and exclamation marks.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model.evaluation.classify import classify
from model.pretrained.trained_model import TrainedModel
from storage.artifacts.store import Artifact
from storage.formats.probes import MIN_PROBED_TOKENS, NO_LABEL, PROBE_TOKENS
from tasks.core.context import Progress, nobody_watches
from tasks.evaluate.head_baselines import Baselines
from tasks.evaluate.labelled_documents import (
    Classes,
    LabelledDocuments,
    encode_texts,
    label_documents,
    label_train_sample,
    packed_field_map,
    read_tokens,
)
from tasks.evaluate.stripped_text import without_markup, without_question_marks
from tasks.labels.classes import CLASSES
from tasks.labels.probes import probe_ids

SURE = 0.5
"""Largest probability below which a head counts as abstaining."""

STRIPPED: dict[str, Callable[[str], str]] = {"tone": without_question_marks, "field": without_markup}
"""What each head is asked again without."""

DIGITS = 4


def measure_heads(
    trained: TrainedModel,
    ids: Mapping[str, Sequence[list[int]]],
    model: Artifact,
    corpus: Artifact,
    batch_tokens: int,
    progress: Progress = nobody_watches,
) -> dict[str, Any] | None:
    """Return what the report shows of both heads, None if the model's heads were never trained.

    `ids` are the tokens of the held-out documents without EOT, by subset.
    Raises: InputError if it is not known any more how the training data was labelled.
    """
    if not trained.description.has_trained_heads:
        return None
    field_map = packed_field_map(model)
    held_out = label_documents(trained, [(name, each) for name in ids for each in ids[name]], field_map)
    sample, shards = label_train_sample(trained, corpus, field_map)
    chances = classify_documents(trained, held_out.read, batch_tokens, progress)
    return {
        "documents": len(held_out.read),
        "read_tokens": read_tokens(trained),
        "train_documents": len(sample.texts),
        "train_shards": shards,
        **{kind: _measure_head(kind, trained, held_out, sample, chances[kind], batch_tokens) for kind in chances},
    }


@torch.inference_mode()
def classify_documents(
    trained: TrainedModel,
    read: Sequence[list[int]],
    batch_tokens: int,
    progress: Progress = nobody_watches,
) -> dict[str, NDArray[np.float64]]:
    """Return the probabilities of the classes of each kind. Shapes: results (documents, classes).

    Documents of one length are read together, `batch_tokens` tokens at once but at least one document.
    """
    network, probes = trained.network, probe_ids(trained.encoder).ids()
    chances = {kind: np.zeros((len(read), size)) for kind, size in trained.description.model.classes().items()}
    by_length: dict[int, list[int]] = defaultdict(list)
    for number, tokens in enumerate(read):
        by_length[len(tokens)].append(number)
    done = 0
    for length, numbers in sorted(by_length.items(), reverse=True):
        rows = max(1, batch_tokens // (length + PROBE_TOKENS))
        for batch in (numbers[start : start + rows] for start in range(0, len(numbers), rows)):
            ids_BT = torch.tensor([read[number] for number in batch], device=network.device)
            for kind, chances_BN in classify(network, ids_BT, probes).items():
                chances[kind][batch] = chances_BN.double().cpu().numpy()
            done += len(batch)
            progress(done, len(read), "documents")
    return chances


def _measure_head(
    kind: str,
    trained: TrainedModel,
    held_out: LabelledDocuments,
    sample: LabelledDocuments,
    chances: NDArray[np.float64],
    batch_tokens: int,
) -> dict[str, Any]:
    documents, taught = held_out.labelled(kind), sample.labelled(kind)
    labels, chances = documents.labels[kind], chances[held_out.labels[kind] != NO_LABEL]
    baselines = Baselines(taught.texts, taught.labels[kind])
    told = {"head": chances.argmax(axis=1), **baselines.predict(documents.texts)}
    sure = chances.max(axis=1, initial=0.0) >= SURE

    stripped = strip_documents(trained, documents, STRIPPED[kind])
    enough = np.array([len(read) >= MIN_PROBED_TOKENS for read in stripped.read], bool)
    stripped = stripped.chosen(enough)
    again = classify_documents(trained, stripped.read, batch_tokens)[kind].argmax(axis=1)
    return {
        "majority": None if baselines.commonest is None else CLASSES[kind][baselines.commonest],
        "abstained": _share(~sure),
        "all": scores(labels, told),
        "sure": scores(labels[sure], _only(told, sure)),
        "enough": scores(labels[enough], _only(told, enough)),
        "stripped": scores(labels[enough], {"head": again, **baselines.predict(stripped.texts)}),
        "classes": class_rows(CLASSES[kind], labels, told, baselines.labels),
    }


def strip_documents(
    trained: TrainedModel, documents: LabelledDocuments, strip: Callable[[str], str]
) -> LabelledDocuments:
    """Return what is left of the text that was read; EOT ends it where it did before."""
    texts = [strip(text) for text in documents.texts]
    room, read = read_tokens(trained), []
    for ids, before in zip(encode_texts(trained.encoder, texts), documents.read, strict=True):
        end = [trained.eot_id] if before[-1] == trained.eot_id else []
        read.append([trained.eot_id, *ids, *end][:room])
    return LabelledDocuments(read, texts, documents.labels)


def scores(labels: Classes, told: Mapping[str, Classes]) -> dict[str, Any]:
    """Return how far each method agrees with the labels: accuracy, and macro-F1 over the classes there are."""
    present = np.unique(labels)
    return {
        "documents": int(labels.size),
        "accuracy": {method: _share(classes == labels) for method, classes in told.items()},
        "macro_f1": {
            method: _mean([_f1(labels == one, classes == one) for one in present])
            for method, classes in told.items()
        },
    }


def class_rows(
    names: Sequence[str], labels: Classes, told: Mapping[str, Classes], train_labels: Classes
) -> list[dict[str, Any]]:
    """Return for each class how often it is a label, and the share of these documents that each method finds."""
    return [
        {
            "class": name,
            "train_documents": int(np.count_nonzero(train_labels == number)),
            "documents": int(np.count_nonzero(labels == number)),
            "recall": {
                method: _share(classes[labels == number] == number)
                for method, classes in told.items()
                if method != "majority"
            },
        }
        for number, name in enumerate(names)
    ]


def _only(told: Mapping[str, Classes], chosen: NDArray[np.bool_]) -> dict[str, Classes]:
    return {method: classes[chosen] for method, classes in told.items()}


def _f1(wanted: NDArray[np.bool_], found: NDArray[np.bool_]) -> float:
    return float(2 * np.count_nonzero(wanted & found) / (np.count_nonzero(wanted) + np.count_nonzero(found)))


def _share(hits: NDArray[np.bool_]) -> float | None:
    return _mean(hits.astype(float).tolist())


def _mean(values: Sequence[float]) -> float | None:
    return round(float(np.mean(values)), DIGITS) if len(values) else None
