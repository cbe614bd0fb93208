"""Keep a cache within a budget of keys.

Blocks whose context layer scores the tokens keep what it predicts to be of use; others keep the first and the most
recent keys.
"""

import torch

from model.families.world.context.retention import kept_keys, retention
from model.layers.cache import Cache


def evict(cache: Cache, budget: int, window: int, batch: int, device: torch.device) -> None:
    """Forget keys of every block that has more than `budget`, so that it has exactly that many in each row.

    `window` is the distance in tokens within which an urgent token is of use, the model's `context_window`;
    `batch` is the number of rows that the cache remembers, `device` where it is.

    Raises: ValueError if the budget leaves no room beside the keys that always stay.
    """
    for block in cache.blocks:
        if block.length <= budget:
            continue
        rows_BK = block.row_numbers(batch, device)
        scores_BK = None
        if block.context_BK2 is not None:
            importance_BK, urgency_BK = block.context_BK2.unbind(-1)
            scores_BK = retention(importance_BK, urgency_BK, block.read - 1 - rows_BK, window)
        block.keep(kept_keys(scores_BK, rows_BK, block.visible_BK, budget))
