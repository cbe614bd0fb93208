"""What a superblock remembers: keys, values and states, and what the context layer says about each key.

Shapes: B sequences, K remembered keys, N kept keys.
"""

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from model.layers.cache import BlockCache, cloned


class ContextBlockCache(BlockCache):
    """A block whose keys are worth what the context layer predicts of their use; without one, the latest."""

    def __init__(self, attention_layers: int, states: Sequence[Any], capacity: int, window: int) -> None:
        super().__init__(attention_layers, states, capacity)
        self.window = window
        """Distance in tokens within which an urgent token is of use."""
        self.context_BK2: Tensor | None = None
        """Importance and urgency of each key, if a context layer scores them."""

    def worth(self, rows_BK: Tensor) -> Tensor | None:
        """Return the retention of each key."""
        if self.context_BK2 is None:
            return None
        importance_BK, urgency_BK = self.context_BK2.unbind(-1)
        return retention(importance_BK, urgency_BK, self.read - 1 - rows_BK, self.window)

    def keep(self, index_BN: Tensor) -> None:
        """Forget all keys but those at the given places, ascending in each row."""
        super().keep(index_BN)
        if self.context_BK2 is not None:
            self.context_BK2 = self.context_BK2.gather(1, index_BN[..., None].expand(-1, -1, 2))

    def clone(self) -> Self:
        """Return a copy with buffers and states of its own."""
        copied = super().clone()
        copied.context_BK2 = cloned(self.context_BK2)
        return copied


def retention(importance: Tensor, urgency: Tensor, age: Tensor, window: int) -> Tensor:
    """Return how much a key is worth keeping, in (0, 1): important ones at any age, urgent ones while fresh."""
    return importance + (1 - importance) * urgency * torch.exp(-age.clamp(min=0).float() / window)
