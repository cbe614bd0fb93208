"""What the context layers of a world model do on held-out documents: agreement with attention, gains, a picture.

A layer predicts for each token how much later tokens will look at it, from afar (importance) and from nearby
(urgency); `model.families.world.context.utility` says what they did. The two are compared by Spearman's rank
correlation, document by document. The gains say how far a layer acts on its own predictions.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any

import torch

from model.families.world.context.utility import utility_correlations, utility_targets
from model.families.world.measurements.picture import ACTING_GAIN, context_payload
from model.families.world.network import WorldModel
from model.families.world.trace import Trace
from model.pretrained.trained_model import Trained

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SAMPLE_DOCUMENTS = 32
"""Documents whose correlations are averaged."""

QUERIES = 256
"""Tokens of a document whose attention is looked at, all of a shorter one: bounds the attention matrix."""

PICTURE_TOKENS = 256

DIGITS = 4

SCORES = ("importance", "urgency")


def measure_context(
    trained: Trained, ids: Mapping[str, Sequence[list[int]]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what the report shows of the context layers, and the data of the picture.

    `ids` are the tokens of the held-out documents without EOT, by subset.
    """
    window = trained.network.config.context_window
    # A shorter document has no or few tokens that anything looks at from afar.
    chosen = sample_documents(ids, 2 * window, SAMPLE_DOCUMENTS)
    generator = torch.Generator().manual_seed(0)
    correlations = [_correlations(trained, document, generator) for document in chosen]
    first = next(document for group in ids.values() for document in group)
    first = first[: min(PICTURE_TOKENS, trained.network.config.max_seq_len)]
    trace = _read(trained, first)
    spearman = {
        name: [_mean([found[block][place] for found in correlations]) for block in range(len(trace.contexts))]
        for place, name in enumerate(SCORES)
    }
    tokens = readable_tokens(trained.encoder, first)
    picture = context_payload(tokens, trace.contexts, {name: _numbers(row) for name, row in spearman.items()})
    gains = {
        "drop": [_largest(scores.drop_gain_AH) for scores in trace.contexts],
        "decay": [_largest(scores.decay_gain_AH) for scores in trace.contexts],
        "write": [_largest(scores.write_gain_DH) for scores in trace.contexts],
    }
    influence = max(chain.from_iterable(gains.values()))
    measured = {
        "window": window,
        "documents": len(chosen),
        "min_tokens": 2 * window,
        "queries": QUERIES,
        "spearman": spearman,
        "largest_gain": gains,
        "influence": influence,
        "acts": influence >= ACTING_GAIN,
    }
    return measured, picture


def sample_documents(ids: Mapping[str, Sequence[list[int]]], min_tokens: int, documents: int) -> list[list[int]]:
    """Return documents of at least `min_tokens` tokens: the first of each subset, then the second of each, ..."""
    long = [[document for document in group if len(document) >= min_tokens] for group in ids.values()]
    turns = chain.from_iterable(zip_longest(*long))
    return [document for document in turns if document is not None][:documents]


def readable_tokens(encoder: "Tokenizer", ids: Sequence[int]) -> list[str]:
    """Return the text of each token; bytes that are only a part of a character as <E2>."""
    shown = []
    for token in ids:
        text, name = encoder.decode([token], skip_special_tokens=False), encoder.id_to_token(token) or ""
        if "\N{REPLACEMENT CHARACTER}" in text and all(letter in _BYTE_OF for letter in name):
            data = bytes(_BYTE_OF[letter] for letter in name)
            text = "".join(
                f"<{ord(char) - 0xDC00:02X}>" if 0xDC80 <= ord(char) <= 0xDCFF else char
                for char in data.decode(errors="surrogateescape")
            )
        shown.append(text)
    return shown


def _byte_letters() -> dict[str, int]:
    """Return the byte that each letter of a byte-level vocabulary stands for.

    Source: GPT-2's vocabulary. Bytes that are printable in Latin-1 stand for themselves, the others in their order
    for the letters from 256 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}


_BYTE_OF = _byte_letters()


def _correlations(trained: Trained, document: list[int], generator: torch.Generator) -> list[tuple[float, float]]:
    """Return the rank correlations of importance and urgency of one document, per superblock."""
    trace, window = _read(trained, document), trained.network.config.context_window
    found = []
    for scores, (queries, keys) in zip(trace.contexts, trace.queries_keys, strict=True):
        scale = queries.shape[-1] ** -0.5
        targets = utility_targets(queries, keys, scale, window, n_query=QUERIES, generator=generator)
        found.append(utility_correlations(scores, targets))
    return found


@torch.inference_mode()
def _read(trained: Trained, document: Sequence[int]) -> Trace:
    network, trace = trained.network, Trace()
    assert isinstance(network, WorldModel), "only world models leave a trace"
    network.hidden(torch.tensor([document[: network.config.max_seq_len]], device=network.device), trace=trace)
    return trace


def _largest(gains: torch.Tensor) -> float:
    return round(gains.max().item(), DIGITS)


def _mean(values: Sequence[float]) -> float | None:
    known = [value for value in values if not math.isnan(value)]
    return round(math.fsum(known) / len(known), DIGITS) if known else None


def _numbers(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]
