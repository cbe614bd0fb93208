"""Which keys a cache of limited size keeps.

Source: attention sinks and a recent window, StreamingLLM, arXiv:2309.17453; what fills the rest of the budget is
chosen by a score, as H2O (arXiv:2306.14048) does by accumulated attention.

Shapes: B sequences, K keys, N kept keys.
"""

import math

import torch
from torch import Tensor

SINKS = 4
"""First keys of a sequence: attention parks what it has no use for on them, so they must stay."""
RECENT = 64
"""Last keys of a sequence, which stay whatever their scores say."""


def check_budget(budget: int, sinks: int = SINKS, recent: int = RECENT) -> None:
    """Raise ValueError unless a budget leaves room beside what always stays."""
    if budget <= sinks + recent:
        raise ValueError(
            f"kv_budget must be more than {sinks + recent} keys, for the first {sinks} and the last {recent} "
            f"always stay, found {budget}; choose at least {sinks + recent + 1}, or no budget for a cache without "
            "limit"
        )


def kept_keys(
    worth_BK: Tensor | None,
    rows_BK: Tensor,
    visible_BK: Tensor | None,
    budget: int,
    sinks: int = SINKS,
    recent: int = RECENT,
) -> Tensor:
    """Return the places (B, N) among the keys of those to keep, ascending: N is the budget, or K if that is less.

    The first `sinks` and the last `recent` visible keys stay, then those that are worth most; without scores
    the most recent, so that what stays is sinks and a window. Keys that no token can see any more (padding, an
    earlier document) stay only where a row has too few others: all rows keep equally many.
    `rows_BK` are the places in the row at which the keys were read.

    Raises: ValueError if the budget leaves no room beside sinks and recent keys.
    """
    check_budget(budget, sinks, recent)
    batch, keys = rows_BK.shape
    if keys <= budget:
        return torch.arange(keys, device=rows_BK.device).expand(batch, -1)
    if visible_BK is None:
        visible_BK = torch.ones_like(rows_BK, dtype=torch.bool)

    read_BK = rows_BK.masked_fill(~visible_BK, torch.iinfo(rows_BK.dtype).max).argsort(dim=1, stable=True)
    rank_BK = read_BK.argsort(dim=1)
    visible_B1 = visible_BK.sum(dim=1, keepdim=True)
    always_BK = (rank_BK < sinks) | (rank_BK >= visible_B1 - recent)
    worth_BK = rank_BK.double() if worth_BK is None else worth_BK.double()
    worth_BK = worth_BK.masked_fill(always_BK, math.inf).masked_fill(~visible_BK, -math.inf)
    best_BK = worth_BK.argsort(dim=1, descending=True, stable=True)
    return best_BK[:, :budget].sort(dim=1).values
