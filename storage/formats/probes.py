"""Probe tokens in packed sequences: where documents begin, which predictions count, where the heads read.

A document of enough tokens is followed by two probe tokens, at which a world model's heads read its tone and its
field: `document <|endoftext|> <|tone|> <|field|>`. They stand behind it because a causal model sees nothing of a
document at its beginning. A piece of a cut document has them too, without the end of text.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

PROBE_KINDS = ("tone", "field")
"""What the tokens behind a document ask for, in their order."""

PROBE_TOKENS = len(PROBE_KINDS)
"""Tokens behind a document."""

MIN_PROBED_TOKENS = 64
"""Tokens of a document or a piece of one, EOT included, from which there is enough of it to judge."""

NO_LABEL = -100
"""In place of a label that is not known; the value that torch's cross entropy leaves out."""


@dataclass(frozen=True)
class Probes:
    """The ids of the two probe tokens."""

    tone_id: int
    field_id: int

    def ids(self) -> dict[str, int]:
        """Return the ids by kind, in the order in which they stand behind a document."""
        return dict(zip(PROBE_KINDS, (self.tone_id, self.field_id), strict=True))

    def find(self, tokens: NDArray[Any]) -> NDArray[np.bool_]:
        """Tell which tokens are probes. Shapes: tokens (...); result (...)."""
        found: NDArray[np.bool_] = (tokens == self.tone_id) | (tokens == self.field_id)
        return found


def document_numbers(tokens: NDArray[Any], eot_id: int, probes: Probes | None = None) -> NDArray[np.int64]:
    """Number the documents of packed sequences from 0, each with the probes that follow it.

    An EOT belongs to what follows it: it is what a model reads before the first token of a text, in training as in
    scoring and generation. Only before probes it belongs to the text that it ends. Every token of padding is a
    document of its own, which no other token sees.

    Shapes: tokens (..., T); result (..., T).
    """
    begins: NDArray[np.bool_] = tokens == eot_id
    if probes is not None:
        begins[..., :-1] &= tokens[..., 1:] != probes.tone_id
        begins[..., 1:] |= tokens[..., :-1] == probes.field_id
    begins[..., :1] = False
    return begins.cumsum(-1, dtype=np.int64)


def loss_mask(tokens: NDArray[Any], eot_id: int, probes: Probes | None = None) -> NDArray[np.bool_]:
    """Tell which predictions of packed sequences count: not those of padding or a probe, nor of what follows one.

    Two EOT in a row are a text's end and the next one's beginning, or padding. The end itself is predicted, which
    is how generation learns to stop, and so is the first token after a beginning.

    Shapes: tokens (..., T + 1); result (..., T).
    """
    inputs, targets = tokens[..., :-1], tokens[..., 1:]
    counts: NDArray[np.bool_] = (inputs != eot_id) | (targets != eot_id)
    if probes is not None:
        counts &= ~probes.find(inputs) & ~probes.find(targets)
    return counts


def lead_with_eot(
    lengths: NDArray[np.int64], tokens: NDArray[Any], eot_id: int
) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Put an EOT before every document; it already ends each. Returns the new lengths and tokens.

    Shapes: lengths (documents,), tokens (their sum,).
    """
    return lengths + 1, np.insert(tokens, np.cumsum(lengths) - lengths, eot_id)


def add_probes(
    lengths: NDArray[np.int64], tokens: NDArray[Any], labels: NDArray[np.int8], probes: Probes
) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[np.int8]]:
    """Put both probes behind every piece of MIN_PROBED_TOKENS or more.

    Returns the new lengths and tokens, and a label per token: NO_LABEL but at probes with a label. With probes a
    piece has more than MIN_PROBED_TOKENS tokens, without them fewer.

    Shapes: lengths (pieces,), tokens (their sum,), labels (pieces, 2): tone and field.
    """
    probed = lengths >= MIN_PROBED_TOKENS
    places = np.repeat(np.cumsum(lengths)[probed], PROBE_TOKENS)
    pair = np.array([probes.tone_id, probes.field_id], tokens.dtype)
    tokens = np.insert(tokens, places, np.tile(pair, np.count_nonzero(probed)))
    token_labels = np.full(tokens.size, NO_LABEL, np.int8)
    token_labels[probes.find(tokens)] = labels[probed].ravel()
    return lengths + PROBE_TOKENS * probed, tokens, token_labels
