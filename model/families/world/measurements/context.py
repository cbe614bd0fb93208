"""What the context layers of a world model do on held-out documents: agreement with attention, gains, a picture.

A layer predicts for each token how much later tokens will look at it, from afar (importance) and from nearby
(urgency); `model.families.world.context.utility` says what they did. The two are compared by Spearman's rank
correlation, document by document. The gains say how far a layer acts on its own predictions.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, zip_longest
from typing import Any

import torch

from model.families.world.context.utility import utility_correlations, utility_targets
from model.families.world.measurements.picture import ACTING_GAIN, context_payload
from model.families.world.network import WorldModel
from model.families.world.trace import Trace

SAMPLE_DOCUMENTS = 32
"""Documents whose correlations are averaged."""

QUERIES = 256
"""Tokens of a document whose attention is looked at, all of a shorter one: bounds the attention matrix."""

PICTURE_TOKENS = 256

DIGITS = 4

SCORES = ("importance", "urgency")


def measure_context(
    model: WorldModel,
    ids: Mapping[str, Sequence[list[int]]],
    token_texts: Callable[[Sequence[int]], list[str]],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what the report shows of the context layers, and the data of the picture.

    `ids` are the tokens of the held-out documents without EOT, by subset.
    """
    window = model.config.context_window
    # A shorter document has no or few tokens that anything looks at from afar.
    chosen = sample_documents(ids, 2 * window, SAMPLE_DOCUMENTS)
    generator = torch.Generator().manual_seed(0)
    correlations = [_correlations(model, document, generator) for document in chosen]
    first = next(document for group in ids.values() for document in group)
    first = first[: min(PICTURE_TOKENS, model.config.max_seq_len)]
    trace = _read(model, first)
    spearman = {
        name: [_mean([found[block][place] for found in correlations]) for block in range(len(trace.contexts))]
        for place, name in enumerate(SCORES)
    }
    tokens = token_texts(first)
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


def _correlations(model: WorldModel, document: list[int], generator: torch.Generator) -> list[tuple[float, float]]:
    """Return the rank correlations of importance and urgency of one document, per superblock."""
    trace, window = _read(model, document), model.config.context_window
    found = []
    for scores, (queries, keys) in zip(trace.contexts, trace.queries_keys, strict=True):
        scale = queries.shape[-1] ** -0.5
        targets = utility_targets(queries, keys, scale, window, n_query=QUERIES, generator=generator)
        found.append(utility_correlations(scores, targets))
    return found


@torch.inference_mode()
def _read(model: WorldModel, document: Sequence[int]) -> Trace:
    trace = Trace()
    model.hidden(torch.tensor([document[: model.config.max_seq_len]], device=model.device), trace=trace)
    return trace


def _largest(gains: torch.Tensor) -> float:
    return round(gains.max().item(), DIGITS)


def _mean(values: Sequence[float]) -> float | None:
    known = [value for value in values if not math.isnan(value)]
    return round(math.fsum(known) / len(known), DIGITS) if known else None


def _numbers(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]
