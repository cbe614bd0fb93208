"""What the context scores learn to predict: how much attention each token gets from afar and from nearby.

Labels look at the future of a token as next-token labels do. They come from the attention of the superblock's last
attention layer, read by a sample of queries: the cost is that of a few rows of the attention matrix, not of all.

Shapes: B sequences, T tokens, H query heads, G key/value heads, D head width, Q sampled queries.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from model.families.world.context.layer import ContextScores

N_QUERY = 64
"""Queries of a row that labels come from, at most."""


class UtilityTargets(NamedTuple):
    """Labels for the scores of each token, and where there is one: an invalid token has no query in its band."""

    importance_BT: Tensor
    urgency_BT: Tensor
    importance_valid_BT: Tensor
    urgency_valid_BT: Tensor


@torch.no_grad()
def utility_targets(
    q_BHTD: Tensor,
    k_BGTD: Tensor,
    scale: float,
    window: int,
    documents_BT: Tensor | None = None,
    n_query: int = N_QUERY,
    generator: torch.Generator | None = None,
    places_Q: Tensor | None = None,
) -> UtilityTargets:
    """Return how much attention each token gets, as its rank among the tokens of its row: labels in (0, 1).

    `q` and `k` are rotated, `scale` is the attention's; the context layer's bias is left out, or the layer would
    teach itself. Importance counts queries more than `window` tokens later, urgency those 1 to `window` later, of
    the same document. Attention is taken times the number of keys that the query sees, so that 1 is what a uniform
    one would give and keys that only late queries see are not at a disadvantage. Ranks have the mean 0.5 by
    construction, so the scores cannot all run to one side. The queries are those at `places_Q`, else drawn.
    """
    if places_Q is None:
        places_Q = sample_places(q_BHTD.shape[2], q_BHTD.device, n_query, generator)
    age_QT = places_Q[:, None] - torch.arange(q_BHTD.shape[2], device=q_BHTD.device)
    visible_BQT = (age_QT >= 0).expand(len(q_BHTD), -1, -1)
    if documents_BT is not None:
        visible_BQT = visible_BQT & (documents_BT[:, places_Q, None] == documents_BT[:, None, :])

    attention_BQT = _mean_attention(q_BHTD[:, :, places_Q], k_BGTD, scale, visible_BQT)
    relative_BQT = attention_BQT * visible_BQT.sum(dim=-1, keepdim=True)
    importance_BT, importance_valid_BT = _ranked(relative_BQT, visible_BQT & (age_QT > window))
    urgency_BT, urgency_valid_BT = _ranked(relative_BQT, visible_BQT & (age_QT >= 1) & (age_QT <= window))
    return UtilityTargets(importance_BT, urgency_BT, importance_valid_BT, urgency_valid_BT)


def utility_loss(scores: ContextScores, targets: UtilityTargets) -> Tensor:
    """Return the mean cross entropy of importance plus that of urgency, in nats; the caller weights it.

    The mean over the valid tokens of a row, then over the rows: a row counts the same in every micro-batch.
    Without a valid token a row's mean is 0 and keeps its gradient graph: all ranks must run the same one.
    """
    # Scores are float32 sigmoids; autocast would refuse a cross entropy of probabilities.
    with torch.autocast(scores.importance_BT.device.type, enabled=False):
        importance = F.binary_cross_entropy(scores.importance_BT, targets.importance_BT, reduction="none")
        urgency = F.binary_cross_entropy(scores.urgency_BT, targets.urgency_BT, reduction="none")
    return _mean(importance, targets.importance_valid_BT) + _mean(urgency, targets.urgency_valid_BT)


def mean_utility_loss(
    contexts: Sequence[ContextScores],
    queries_keys: Sequence[tuple[Tensor, Tensor]],
    window: int,
    documents_BT: Tensor | None,
    places_Q: Tensor | None = None,
) -> Tensor:
    """Return the mean over the superblocks of a pass; `documents_BT` as `number_documents` gives them.

    The queries are those at `places_Q` if they were drawn for rows of this length, else drawn here.
    """
    losses = []
    for scores, (queries, keys) in zip(contexts, queries_keys, strict=True):
        scale = queries.shape[-1] ** -0.5
        targets = utility_targets(queries, keys, scale, window, documents_BT, places_Q=places_Q)
        losses.append(utility_loss(scores, targets))
    return torch.stack(losses).mean()


@torch.no_grad()
def utility_correlations(scores: ContextScores, targets: UtilityTargets) -> tuple[float, float]:
    """Return Spearman's rank correlation of importance and of urgency with their labels; see `spearman`."""
    return (
        spearman(scores.importance_BT, targets.importance_BT, targets.importance_valid_BT),
        spearman(scores.urgency_BT, targets.urgency_BT, targets.urgency_valid_BT),
    )


def spearman(score_BT: Tensor, target_BT: Tensor, valid_BT: Tensor) -> float:
    """Return the rank correlation over the valid tokens of a row, ties at their mean rank, averaged over rows.

    Rows where it is undefined, with less than two tokens or all of them equal, are left out; nan if all are.
    """
    correlations = []
    for score_T, target_T, valid_T in zip(score_BT, target_BT, valid_BT, strict=True):
        ranks = [_mean_ranks(values[valid_T]) for values in (score_T, target_T)]
        first, second = (rank - rank.mean() for rank in ranks)
        spread = (first.square().sum() * second.square().sum()).sqrt()
        if spread > 0:
            correlations.append(((first * second).sum() / spread).item())
    return sum(correlations) / len(correlations) if correlations else math.nan


def sample_places(
    length: int, device: torch.device, n_query: int = N_QUERY, generator: torch.Generator | None = None
) -> Tensor:
    """Draw distinct places of a row, on the generator's device."""
    source = device if generator is None else generator.device
    return torch.randperm(length, generator=generator, device=source)[:n_query].to(device)


def _mean_attention(q_BHQD: Tensor, k_BGTD: Tensor, scale: float, visible_BQT: Tensor) -> Tensor:
    """Return the attention (B, Q, T) of some queries, averaged over heads, in float32."""
    batch, heads, queries, width = q_BHQD.shape
    groups = k_BGTD.shape[1]
    # Neighbouring query heads share a key head; all their queries form one matrix, so that no key is repeated.
    q = q_BHQD.reshape(batch, groups, heads // groups * queries, width)
    with torch.autocast(q.device.type, enabled=False):
        logits = scale * (q.float() @ k_BGTD.float().mT)
    logits_BHQT = logits.view(batch, heads, queries, -1)
    return logits_BHQT.masked_fill(~visible_BQT[:, None], -math.inf).softmax(dim=-1).mean(dim=1)


def _ranked(relative_BQT: Tensor, band_BQT: Tensor) -> tuple[Tensor, Tensor]:
    """Return each token's rank by its mean attention from a band, scaled to (0, 1), and where there is one."""
    queries_BT = band_BQT.sum(dim=1)
    valid_BT = queries_BT > 0
    utility_BT = (relative_BQT * band_BQT).sum(dim=1) / queries_BT.clamp(min=1)
    # Stable, so that equal tokens are ranked by place and not by chance; invalid ones come last.
    order_BT = utility_BT.masked_fill(~valid_BT, math.inf).argsort(dim=-1, stable=True)
    rank_BT = order_BT.argsort(dim=-1)
    label_BT = (rank_BT + 0.5) / valid_BT.sum(dim=-1, keepdim=True).clamp(min=1)
    return label_BT.masked_fill(~valid_BT, 0.5), valid_BT


def _mean(loss_BT: Tensor, valid_BT: Tensor) -> Tensor:
    return ((loss_BT * valid_BT).sum(dim=-1) / valid_BT.sum(dim=-1).clamp(min=1)).mean()


def _mean_ranks(values: Tensor) -> Tensor:
    """Return ranks from 0, equal values sharing the mean of theirs, in float64."""
    ascending = values.sort().values
    first = torch.searchsorted(ascending, values.contiguous())
    last = torch.searchsorted(ascending, values.contiguous(), right=True) - 1
    return (first + last).double() / 2
