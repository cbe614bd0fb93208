"""What the sublayers of one superblock share in one forward pass: places, visibility, scores, memory.

Shapes: B sequences, T new tokens, K visible keys, H heads.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.families.world.context.block_cache import ContextBlockCache
from model.families.world.context.layer import ContextScores, attention_bias, write_gate
from model.families.world.trace import Trace


class SuperblockContext:
    """The context layer's scores of the new tokens and of the remembered ones, for one superblock."""

    def __init__(self, layer: nn.Module, window: int, x_BTC: Tensor, cache: ContextBlockCache | None) -> None:
        self.window = window
        self.scores: ContextScores = layer(x_BTC)
        # A compiled graph cannot ask; there the bias is always added.
        self.acts = torch.compiler.is_compiling() or self.scores.acts
        batch, length, _ = x_BTC.shape
        keys_BK2 = torch.stack((self.scores.importance_BT, self.scores.urgency_BT), dim=-1)
        start, rows_BK = 0, None
        if cache is not None and cache.context_BK2 is not None:
            start, rows_BK = cache.read, cache.row_numbers(batch, x_BTC.device)
            keys_BK2 = torch.cat((cache.context_BK2, keys_BK2), dim=1)
        if cache is not None:
            cache.context_BK2 = keys_BK2
        self.importance_BK, self.urgency_BK = keys_BK2.unbind(-1)
        self.rows_T = torch.arange(start, start + length, device=x_BTC.device)
        new_BT = self.rows_T.expand(batch, -1)
        self.rows_BK = new_BT if rows_BK is None else torch.cat((rows_BK, new_BT), dim=1)

    def attention_bias(self, number: int) -> Tensor | None:
        """Return what the attention sublayer `number` of the superblock adds to its logits, (B, H, T, K).

        None if that is nothing: without a mask of its own attention has a faster path.
        """
        if not self.acts:
            return None
        return attention_bias(
            self.importance_BK,
            self.urgency_BK,
            self.rows_T,
            self.rows_BK,
            self.scores.drop_gain_AH[number],
            self.scores.decay_gain_AH[number],
            self.window,
        )

    def write_gate(self, number: int) -> Tensor:
        """Return the factor on the write strength of the DeltaNet sublayer `number`, (B, T, H)."""
        scores = self.scores
        return write_gate(scores.importance_BT, scores.urgency_BT, scores.write_gain_DH[number])


@dataclass(frozen=True)
class ForwardContext:
    """Where the tokens of a superblock's sublayers stand."""

    rotation: tuple[Tensor, Tensor]
    """Cosine and sine of the rotary positions."""
    mask: Tensor | None
    """Visible keys, (B or 1, 1, T, K); None: all, or with `causal` those before."""
    causal: bool
    documents_BT: Tensor | None
    context: SuperblockContext | None
    cache: ContextBlockCache | None
    trace: Trace | None
