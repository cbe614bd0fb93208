"""What every family is to its callers: ids to logits, with packed documents and a cache.

Shapes: B sequences, T tokens, V vocabulary, C width of the residual stream.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from model.layers.cache import Cache


class LanguageModel(nn.Module):
    """Maps token ids (B, T) to the logits (B, T, V) of the next token at each position.

    A new model has random weights that follow from `torch.manual_seed` alone. Subclasses define `hidden`, `logits`
    and `new_cache`.
    """

    config: Any
    """Its GPT2Config, RopeConfig or WorldConfig."""
    learned_positions = False
    """Whether `max_seq_len` is a hard limit; rotary models go on beyond it, though they were not trained there."""

    def forward(self, ids_BT: Tensor, documents_BT: Tensor | None = None, cache: "Cache | None" = None) -> Tensor:
        """Return logits (B, T, V).

        `documents_BT` numbers the documents of a row: where the number changes, to an old one too, positions
        restart at 0 and nothing before is seen. Without it a row is one document. With a cache tokens also see
        what it remembers, and are added to it.

        Ids are not checked: that would wait for the device in every call. `generate`, `classify` and `fit` do.

        Raises: ValueError if a position is beyond what the model has.
        """
        return self.logits(self.hidden(ids_BT, documents_BT, cache))

    def hidden(self, ids_BT: Tensor, documents_BT: Tensor | None = None, cache: "Cache | None" = None) -> Tensor:
        """Return what the head reads, (B, T, C); see `forward`."""
        raise NotImplementedError

    def logits(self, hidden: Tensor) -> Tensor:
        """Apply the output head: (..., C) to (..., V)."""
        raise NotImplementedError

    def new_cache(self, capacity: int = 0) -> "Cache":
        """Return an empty cache; `capacity` tokens fit in without a copy."""
        raise NotImplementedError

    def check_length(self, length: int) -> None:
        """Raise ValueError if a model of learned positions has none for `length` tokens."""
        if self.learned_positions and length > self.config.max_seq_len:
            raise ValueError(
                f"a sequence must have at most max_seq_len={self.config.max_seq_len} tokens, found {length}; "
                f"cut it into windows"
            )

    def check_ids(self, ids_BT: Tensor) -> None:
        """Raise ValueError unless ids are integers (B, T), T > 0, and below the vocabulary size."""
        if ids_BT.dim() != 2 or ids_BT.shape[0] == 0 or ids_BT.shape[1] == 0:
            raise ValueError(
                f"ids must have the shape (sequences, tokens) with a token or more, found {tuple(ids_BT.shape)}; "
                f"begin an empty text with the end-of-text token"
            )
        if ids_BT.dtype not in (torch.int64, torch.int32):
            raise ValueError(f"ids must be int64 or int32, found {ids_BT.dtype}; convert them with .long()")
        low, high = int(ids_BT.min()), int(ids_BT.max())
        if low < 0 or high >= self.config.vocab_size:
            raise ValueError(
                f"ids must lie between 0 and {self.config.vocab_size - 1}, found {low} to {high}; "
                f"use the tokenizer that the model was trained with"
            )

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device
