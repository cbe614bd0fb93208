"""What a model remembers of the tokens it has read: keys, values and states, so that a new token is cheap.

A cache continues the last document of each row. What a row read before it, padding or other documents, is
remembered as invisible and never attended to.

Shapes: B sequences, T new tokens, K remembered keys, H key/value heads, D head width.
"""

import copy
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from model.layers.eviction import check_budget, kept_keys


class KeyValues:
    """Keys and values of one attention layer, in buffers that grow by doubling."""

    def __init__(self, capacity: int = 0) -> None:
        self.capacity = capacity
        self.length = 0
        self.buffer_2BHKD: Tensor | None = None
        """The keys, then the values; only the first `length` are filled."""

    def append(self, k_BHTD: Tensor, v_BHTD: Tensor) -> tuple[Tensor, Tensor]:
        """Remember new keys and values; return all of them, (B, H, K, D) each."""
        start, self.length = self.length, self.length + k_BHTD.shape[2]
        buffer = self.buffer_2BHKD
        if buffer is None or self.length > buffer.shape[3]:
            buffer = self._grow(k_BHTD, start)
        buffer[0, :, :, start : self.length] = k_BHTD
        buffer[1, :, :, start : self.length] = v_BHTD
        return buffer[0, :, :, : self.length], buffer[1, :, :, : self.length]

    def keep(self, index_BN: Tensor) -> None:
        """Forget all keys but those at the given places, ascending in each row."""
        buffer = self.buffer_2BHKD
        assert buffer is not None, "there are keys to forget"
        index = index_BN[:, None, :, None].expand(2, -1, buffer.shape[2], -1, buffer.shape[4])
        self.length = index_BN.shape[1]
        buffer[:, :, :, : self.length] = buffer.gather(3, index)

    def clone(self) -> "KeyValues":
        """Return a copy with buffers of its own."""
        copied = KeyValues(self.capacity)
        copied.length, copied.buffer_2BHKD = self.length, cloned(self.buffer_2BHKD)
        return copied

    def _grow(self, new_BHTD: Tensor, used: int) -> Tensor:
        batch, heads, _, width = new_BHTD.shape
        # At least 32 free places: a cache without a hint would otherwise be copied for every early token.
        capacity = max(self.capacity, self.length + max(32, used))
        old, self.buffer_2BHKD = self.buffer_2BHKD, new_BHTD.new_empty(2, batch, heads, capacity, width)
        if old is not None:
            self.buffer_2BHKD[:, :, :, :used] = old[:, :, :, :used]
        return self.buffer_2BHKD


class BlockCache:
    """What a group of layers remembers; its attention layers keep the same keys."""

    def __init__(self, attention_layers: int, states: Sequence[Any] = (), capacity: int = 0) -> None:
        self.attention = [KeyValues(capacity) for _ in range(attention_layers)]
        self.states = list(states)
        """The recurrent states of the other layers; each has `clone()`."""
        self.rows_BK: Tensor | None = None
        """The place in its row at which each key was read; None: all are remembered, in order."""
        self.visible_BK: Tensor | None = None
        """Keys of the last document of the row; None: all are."""
        self.read = 0
        """Tokens read in each row, padding and what was forgotten included."""

    @property
    def length(self) -> int:
        """Remembered keys per row; 0 for layers that remember states alone."""
        return self.attention[0].length if self.attention else 0

    def mask(self, length: int, device: torch.device) -> Tensor | None:
        """Return which keys each of `length` new tokens may see, (B or 1, 1, T, K + T); None: all.

        The keys of the new tokens must not have been appended yet.
        """
        if length == 1:
            seen = self.visible_BK
            return None if seen is None else torch.nn.functional.pad(seen, (0, 1), value=True)[:, None, None]
        new_TT = torch.ones(length, length, dtype=torch.bool, device=device).tril()
        old = new_TT.new_ones(1, self.length) if self.visible_BK is None else self.visible_BK
        rows = old[:, None, None].expand(-1, 1, length, -1)
        return torch.cat((rows, new_TT.expand(len(old), 1, -1, -1)), dim=-1)

    def advance(self, length: int, visible_BT: Tensor | None) -> None:
        """Note the places of `length` new tokens, whose keys have been appended."""
        if self.rows_BK is not None:
            new = torch.arange(self.read, self.read + length, device=self.rows_BK.device)
            self.rows_BK = torch.cat((self.rows_BK, new.expand(len(self.rows_BK), -1)), dim=1)
        if visible_BT is not None:
            self.visible_BK = visible_BT
        elif self.visible_BK is not None:
            self.visible_BK = torch.nn.functional.pad(self.visible_BK, (0, length), value=True)
        self.read += length

    def row_numbers(self, batch: int, device: torch.device) -> Tensor:
        """Return the place in its row of every remembered key, (B, K)."""
        if self.rows_BK is not None:
            return self.rows_BK
        return torch.arange(self.length, device=device).expand(batch, -1)

    def keep(self, index_BN: Tensor) -> None:
        """Forget all keys but those at the given places, ascending in each row."""
        self.rows_BK = self.row_numbers(len(index_BN), index_BN.device).gather(1, index_BN)
        if self.visible_BK is not None:
            self.visible_BK = self.visible_BK.gather(1, index_BN)
        for key_values in self.attention:
            key_values.keep(index_BN)

    def worth(self, rows_BK: Tensor) -> Tensor | None:
        """Return how much each key is worth keeping, (B, K); None: the later, the more.

        `rows_BK` are the places in the row at which the keys were read.
        """
        return None

    def evict(self, budget: int) -> None:
        """Forget keys, so that at most `budget` are left in each row."""
        if self.length <= budget:
            return
        buffer = self.attention[0].buffer_2BHKD
        assert buffer is not None, "there are keys to forget"
        rows_BK = self.row_numbers(buffer.shape[1], buffer.device)
        self.keep(kept_keys(self.worth(rows_BK), rows_BK, self.visible_BK, budget))

    def clone(self) -> Self:
        """Return a copy with buffers and states of its own."""
        copied = copy.copy(self)  # of the same class
        copied.states = [state.clone() for state in self.states]
        copied.attention = [key_values.clone() for key_values in self.attention]
        copied.rows_BK, copied.visible_BK = cloned(self.rows_BK), cloned(self.visible_BK)
        return copied


class Cache:
    """The memory of a whole model for one batch of sequences."""

    def __init__(self, blocks: Sequence[BlockCache]) -> None:
        self.blocks = list(blocks)
        self.positions_B: Tensor | None = None
        """Position of each row's next token in its document; None: `length` in every row."""

    @property
    def length(self) -> int:
        """Tokens read in each row, padding and what was forgotten included."""
        return self.blocks[0].read

    def positions(self, length: int, device: torch.device) -> Tensor:
        """Return the positions of `length` new tokens, (T) or (B, T)."""
        if self.positions_B is None:
            return torch.arange(self.length, self.length + length, device=device)
        return self.positions_B[:, None] + torch.arange(length, device=device)

    def advance(self, length: int, positions: Tensor, documents_BT: Tensor | None) -> None:
        """Note that `length` tokens were read; called once by a model after its layers have appended theirs."""
        visible_BT = None
        if documents_BT is not None:
            visible_BT = documents_BT == documents_BT[:, -1:]
            self.positions_B = positions[:, -1] + 1
        elif self.positions_B is not None:
            self.positions_B = self.positions_B + length
        for block in self.blocks:
            block.advance(length, visible_BT)

    def evict(self, budget: int) -> None:
        """Forget keys of every block, so that at most `budget` are left in each row; states stay.

        The first and the last ones always stay, between them those that the block calls worth most.
        Raises: ValueError if the budget leaves no room beside the keys that always stay.
        """
        check_budget(budget)
        for block in self.blocks:
            block.evict(budget)

    def clone(self) -> "Cache":
        """Return an independent copy: reading with it leaves this one as it is.

        As with `Tensor.clone`, gradients flow through it if they are enabled now.
        """
        copied = copy.copy(self)  # of the same class
        copied.blocks = [block.clone() for block in self.blocks]
        copied.positions_B = cloned(self.positions_B)
        return copied


def number_documents(documents_BT: Tensor | None) -> Tensor | None:
    """Number the documents of each row upwards from 0 as they change: (0, 1, 0) and (4, 7, 4) become (0, 1, 2).

    A number may come back, as that of padding on both sides; what bears it is another document.
    """
    if documents_BT is None:
        return None
    changes = documents_BT[:, 1:] != documents_BT[:, :-1]
    return torch.nn.functional.pad(changes.cumsum(dim=1), (1, 0))


def token_positions(ids_BT: Tensor, documents_BT: Tensor | None, cache: Cache | None) -> Tensor:
    """Return the position of each token in its document, (T) or (B, T).

    `documents_BT` numbers the documents of a row as `number_documents` does; positions restart at 0 in each.
    Raises: ValueError for document numbers together with a cache that has read something.
    """
    length, device = ids_BT.shape[1], ids_BT.device
    if documents_BT is None:
        return torch.arange(length, device=device) if cache is None else cache.positions(length, device)
    if cache is not None and cache.length:
        raise ValueError(
            f"document numbers must be given with the first tokens of a cache, found them after {cache.length} "
            f"tokens; what is read later belongs to each row's last document"
        )
    places = torch.arange(length, device=device)
    begins = torch.nn.functional.pad(documents_BT[:, 1:] != documents_BT[:, :-1], (1, 0), value=True)
    return places - torch.where(begins, places, 0).cummax(dim=1).values


def attention_mask(
    ids_BT: Tensor, documents_BT: Tensor | None, block: BlockCache | None
) -> tuple[Tensor | None, bool]:
    """Return what each token may see as (mask (B or 1, 1, T, K) or None, plain causal): one of the two forms.

    `documents_BT` numbers the documents of a row as `number_documents` does.
    """
    if block is not None and block.length:
        return block.mask(ids_BT.shape[1], ids_BT.device), False
    if documents_BT is None:
        return None, ids_BT.shape[1] > 1
    same_BTT = documents_BT[:, :, None] == documents_BT[:, None, :]
    return same_BTT.tril()[:, None], False


def cloned(tensor: Tensor | None) -> Tensor | None:
    """Return a copy of a tensor that may be missing."""
    return None if tensor is None else tensor.clone()
