"""What every family is to its callers: ids to logits, with packed documents and a cache.

Shapes: B sequences, T tokens, V vocabulary, C width of the residual stream, N classes.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from model.layers.cache import Cache


class GroupOptions(NamedTuple):
    """How an optimizer treats a parameter."""

    decays: bool
    """Whether weight decay pulls it to zero."""
    rate: float = 1.0
    """Factor on the learning rate."""


class LanguageModel(nn.Module):
    """Maps token ids (B, T) to the logits (B, T, V) of the next token at each position.

    A family's network defines `hidden`, `logits` and `new_cache`; the other methods say nothing unless a family
    has something to say. It promises:

    - Weights follow from `torch.manual_seed` alone; `state_dict` is all there is to save.
    - No logit depends on a later token, on another row, or on another document of its row.
    - With a cache, token by token or in pieces, the logits are those without; `Cache.clone` is independent, and
      after `Cache.evict(budget)` no row remembers more than `budget` keys.
    - `training_pass` gives what `hidden` does and leaves what `auxiliary_losses` needs; loss and auxiliary losses
      are finite and reach every parameter. `parameter_groups` names each parameter once.
    """

    config: Any
    """The family's config."""

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

    def training_pass(self, ids_BT: Tensor, documents_BT: Tensor | None = None) -> tuple[Tensor, Any]:
        """Return `hidden`, and whatever of the pass `auxiliary_losses` needs."""
        return self.hidden(ids_BT, documents_BT), None

    def before_step(self, seed: int, length: int) -> None:
        """Draw what the losses of the next update sample, for rows of `length` tokens, from `seed` alone.

        All micro-batches and processes of an update are given the same seed, so that they sample the same.
        """

    def auxiliary_losses(
        self, trace: Any, documents_BT: Tensor | None, weights: Mapping[str, float]
    ) -> dict[str, Tensor]:
        """Return by name what is added to the language loss, scalars, from the trace of a `training_pass`.

        Each is a mean over the rows of a number that follows from the row alone, unless the config's `mixes_rows`:
        then an update is the same however it is cut into micro-batches. The caller weighs each with `weights`, 1
        if it is not named there; one of weight 0 may be left out.
        """
        return {}

    def head_logits(self, hidden: Tensor) -> dict[str, Tensor]:
        """Apply the classification heads: (..., C) to (..., N), by kind, as `config.classes()` names them."""
        return {}

    def after_step(self, total: Callable[[Sequence[float]], list[float]], balance_rate: float) -> None:
        """Do what follows an update, in all processes; `total` sums numbers over them.

        `balance_rate` is the step by which to even out what no gradient evens out, such as the load of experts.
        """

    def step_metrics(self) -> dict[str, float]:
        """Return for the metrics log what the last update showed."""
        return {}

    def warning(self, metrics: Mapping[str, float], step: int) -> str:
        """Say what in the metrics of a step tells that the training suffers; empty if nothing does."""
        return ""

    def group_options(self, name: str, parameter: nn.Parameter) -> GroupOptions:
        """Return how a parameter is optimized: matrices decay; biases and gains of norms do not."""
        return GroupOptions(decays=parameter.ndim >= 2)

    def parameter_groups(self) -> dict[GroupOptions, list[nn.Parameter]]:
        """Return all parameters by how they are optimized."""
        groups: dict[GroupOptions, list[nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            groups.setdefault(self.group_options(name, parameter), []).append(parameter)
        return groups

    def check_length(self, length: int) -> None:
        """Raise ValueError if a model of learned positions has none for `length` tokens."""
        if self.config.learned_positions and length > self.config.max_seq_len:
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
