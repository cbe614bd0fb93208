"""Labels of probe tokens: the tone and the field that classification heads learn to read off a document.

The rules stand in tasks.labels.tone and tasks.labels.field; here they are applied to documents given as tokens, so
that training and evaluation label in the same way.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from storage.errors import InputError
from storage.formats.documents import TRAIN
from storage.formats.probes import MIN_PROBED_TOKENS, NO_LABEL, PROBE_TOKENS, Probes
from storage.formats.token_archive import TokenArchive
from storage.formats.tokenizer import load_tokenizer
from storage.formats.tokens import FIELD, TONE
from tasks.core.context import StageContext
from tasks.labels.classes import CLASSES
from tasks.labels.field import FieldName, field_label
from tasks.labels.tone import tone_label

log = logging.getLogger(__name__)

UNLABELLED = "unlabelled"

TONE_TOKENS = 1000
"""Beginning of a document that its tone is told from: in English about the 4000 characters that the rules read."""


def probe_ids(tokenizer: Tokenizer) -> Probes:
    """Return the ids of a tokenizer's probe tokens. Raises: InputError if it has none."""
    tone_id, field_id = tokenizer.token_to_id(TONE), tokenizer.token_to_id(FIELD)
    if tone_id is None or field_id is None:
        raise InputError(
            f"whoever reads probe tokens needs a tokenizer with {TONE} and {FIELD}, found one without; "
            f"train another one"
        )
    return Probes(tone_id, field_id)


def document_tone(tokenizer: Tokenizer, ids: Sequence[int]) -> int | None:
    """Return the tone of a document from its tokens, EOT left out; None where the rules abstain."""
    return tone_label(tokenizer.decode(ids[:TONE_TOKENS]))


def label_array(labels: Sequence[int | None]) -> NDArray[np.int8]:
    """Return labels as numbers, NO_LABEL for None."""
    return np.array([NO_LABEL if label is None else label for label in labels], np.int8)


class Labeller:
    """Labels the documents of one shard, window by window in their order."""

    def __init__(self, tokenizer: Path, archive: TokenArchive, field_map: Mapping[str, FieldName | None]) -> None:
        self._tokenizer = load_tokenizer(tokenizer)
        self.probes = probe_ids(self._tokenizer)
        subsets, subset_of = archive.subsets()
        self._fields = label_array([field_label(subset, field_map) for subset in subsets])[subset_of]
        self._labelled = 0

    def label(self, lengths: NDArray[np.int64], tokens: NDArray[Any]) -> NDArray[np.int8]:
        """Return tone and field of the next documents. Shapes: lengths (documents,); result (documents, 2)."""
        ends = np.cumsum(lengths)
        tones = [
            # Without EOT. Short documents get no probes, so that nobody asks for their tone.
            document_tone(self._tokenizer, tokens[end - length : end - 1][:TONE_TOKENS].tolist())
            if length >= MIN_PROBED_TOKENS
            else None
            for length, end in zip(lengths.tolist(), ends.tolist(), strict=True)
        ]
        fields = self._fields[self._labelled : self._labelled + lengths.size]
        self._labelled += lengths.size
        return np.stack([label_array(tones), fields], axis=1)


def label_names(labels: Sequence[int]) -> Iterator[str]:
    """Yield a name to count by for each label; labels alternate between the probe tokens."""
    for place, (kind, classes) in enumerate(CLASSES.items()):
        for label in labels[place::PROBE_TOKENS]:
            yield f"{kind}.{UNLABELLED if label == NO_LABEL else classes[label]}"


def report_labels(counts: Mapping[str, Mapping[str, int]], context: StageContext) -> None:
    """Show how often each label stands at a probe token, given as split -> name of `label_names` -> count."""
    names = [f"{kind}.{name}" for kind, classes in CLASSES.items() for name in (*classes, UNLABELLED)]
    rows = [{"label": name, **{split: counts[split].get(name, 0) for split in counts}} for name in names]
    context.table("Labels at probe tokens", rows)
    hints = {
        "tone": "tones are told of English text",
        "field": "set pack.field_map for collections not of The Pile",
    }
    for kind, classes in CLASSES.items():
        if not any(counts[TRAIN].get(f"{kind}.{name}") for name in classes):
            log.warning("no document of the train split has a %s label: %s", kind, hints[kind])
