"""The Eisenhower context layer: how important and how urgent each token is, and what the layers make of it.

Important is a token that will be looked at from further than `context_window` tokens away, urgent one that will be
looked at from nearer; the two scores sort tokens into do, schedule, delegate and drop. Attention looks less at
what is dropped, and less and less at what is delegated as it ages; a DeltaNet state takes in less of what is
dropped. How strongly is learned from a start at exactly nothing.

Related: the Forgetting Transformer, arXiv:2503.02130, adds to a logit what tokens between query and key decide;
here each key decides alone, so that its scores can be cached. Selective Attention, arXiv:2410.02703, also masks
logits by an opinion on keys, and prunes the cache by it.

Shapes: B sequences, T tokens, K keys, C width of the residual stream, A and D attention and DeltaNet sublayers of
a superblock, H heads.
"""

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.families.world.pattern import PATTERN
from model.layers.basic import Linear, ZeroCentredRMSNorm

if TYPE_CHECKING:
    from model.families.world.config import WorldConfig

QUADRANTS = ("do", "schedule", "delegate", "drop")
"""Names of the quadrants in the order of `quadrants_BT4`."""


class ContextScores(NamedTuple):
    """What a context layer says about the tokens of its superblock, and how far the superblock shall follow.

    A tuple, so that engines which look for tensors in a module's output find them. All in float32.
    """

    importance_BT: Tensor
    """How much later tokens from afar will look at the token, in (0, 1)."""
    urgency_BT: Tensor
    """How much later tokens from nearby will look at the token, in (0, 1)."""
    drop_gain_AH: Tensor
    """Taken from an attention logit for a key that is wholly dropped; at least 0."""
    decay_gain_AH: Tensor
    """Taken from an attention logit for a wholly delegated key, times log(1 + age / window); at least 0."""
    write_gain_DH: Tensor
    """Part of the DeltaNet write strength that a wholly dropped token loses; 0 to 1."""

    @property
    def do_BT(self) -> Tensor:
        """Important and urgent: keeps its full weight."""
        return self.importance_BT * self.urgency_BT

    @property
    def schedule_BT(self) -> Tensor:
        """Important, not urgent: keeps its full weight at any age."""
        return self.importance_BT * (1 - self.urgency_BT)

    @property
    def delegate_BT(self) -> Tensor:
        """Urgent, not important: fades from attention with age and is left to the DeltaNet state."""
        return delegated(self.importance_BT, self.urgency_BT)

    @property
    def drop_BT(self) -> Tensor:
        """Neither: weakened everywhere."""
        return dropped(self.importance_BT, self.urgency_BT)

    @property
    def quadrants_BT4(self) -> Tensor:
        """Return do, schedule, delegate and drop of each token; they sum to 1."""
        return torch.stack((self.do_BT, self.schedule_BT, self.delegate_BT, self.drop_BT), dim=-1)

    @property
    def acts(self) -> bool:
        """Whether attention needs the bias: it changes logits, or the gains are to get a gradient through it.

        Without a gradient this reads the gains, which on a GPU waits for it.
        """
        if self.drop_gain_AH.requires_grad or self.decay_gain_AH.requires_grad:
            return True
        return bool((self.drop_gain_AH > 0).any() or (self.decay_gain_AH > 0).any())


class ContextLayer(nn.Module):
    """Scores the tokens at the start of a superblock and holds the gains of its sublayers.

    The scorer reads the residual stream without a gradient to it, so it never bends the trunk. It sees only the
    token's own vector: scores are causal and final once computed.
    """

    def __init__(self, config: "WorldConfig") -> None:
        super().__init__()
        attention, deltanet = PATTERN.count("A"), PATTERN.count("D")
        self.norm = ZeroCentredRMSNorm(config.d_model, config.norm_eps)
        self.down = Linear(config.d_model, config.context_rank)
        self.score = _Float32Linear(config.context_rank, 2, bias=True)
        self.gain_drop = nn.Parameter(torch.empty(attention, config.n_heads))
        self.gain_decay = nn.Parameter(torch.empty(attention, config.n_heads))
        self.gain_write = nn.Parameter(torch.empty(deltanet, config.n_value_heads))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start with gains of exactly 0: the superblock computes what it would without this layer, bit for bit."""
        for gain in (self.gain_drop, self.gain_decay, self.gain_write):
            nn.init.zeros_(gain)

    def forward(self, x_BTC: Tensor) -> ContextScores:
        """Score each token. All that others need is returned, for an engine may take the parameters away again."""
        scores_BT2 = self.score(F.silu(self.down(self.norm(x_BTC.detach())))).sigmoid()
        return ContextScores(
            scores_BT2[..., 0],
            scores_BT2[..., 1],
            _clamped(self.gain_drop),
            _clamped(self.gain_decay),
            _clamped(self.gain_write, max_gain=1.0),
        )


def delegated(importance: Tensor, urgency: Tensor) -> Tensor:
    """Return how far a token is urgent but not important."""
    return (1 - importance) * urgency


def dropped(importance: Tensor, urgency: Tensor) -> Tensor:
    """Return how far a token is neither important nor urgent."""
    return (1 - importance) * (1 - urgency)


def attention_bias(
    importance_BK: Tensor,
    urgency_BK: Tensor,
    rows_T: Tensor,
    rows_BK: Tensor,
    drop_gain_H: Tensor,
    decay_gain_H: Tensor,
    window: int,
) -> Tensor:
    """Return what one attention layer adds to its logits, (B, H, T, K) in float32; causality is not in it.

    `rows_T` and `rows_BK` are places in the row of the queries, (T) or (B, T), and of the keys, (K) or (B, K);
    their difference is the age, 0 where the key comes later. Gains of 0 give -0.0, which changes no logit bitwise.
    """
    age = (rows_T[..., :, None] - rows_BK[..., None, :]).clamp(min=0).unsqueeze(-3)
    faded = delegated(importance_BK, urgency_BK)[:, None, None] * torch.log1p(age.float() / window)
    lost = dropped(importance_BK, urgency_BK)[:, None, None]
    # The minus stands at the gains, not before the sum: one tensor of the full size less.
    return -decay_gain_H[:, None, None] * faded - drop_gain_H[:, None, None] * lost


def write_gate(importance_BT: Tensor, urgency_BT: Tensor, write_gain_H: Tensor) -> Tensor:
    """Return the factor (B, T, H) on the write strength beta of one DeltaNet layer; 1 for a gain of 0."""
    return 1 - write_gain_H * dropped(importance_BT, urgency_BT)[..., None]


class _Float32Linear(Linear):
    """A projection in float32 whatever the precision around it; a call, so that engines gather its weights."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(x.float(), self.weight.float(), self.bias.float())


def _clamped(gain: Tensor, max_gain: float | None = None) -> Tensor:
    """Return the gain within its bounds, with a gradient of 1 on either side of them.

    A gain at the bound 0 can so begin to grow, and one below come back; relu, softplus or a square could not do
    both and be exactly 0 at the start. Source: straight-through estimator, arXiv:1308.3432.
    """
    gain = gain.float()
    return gain.detach().clamp(min=0, max=max_gain) + (gain - gain.detach())
