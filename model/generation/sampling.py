"""Choosing the next token from logits: repetition penalty, temperature, top-k, top-p, in this order.

Draws happen on the CPU in float64, whatever device computed the logits, with one uniform number per row: what is
drawn depends on the generator and the logits alone.

Shapes: B sequences, V vocabulary, N candidates.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

SMALLEST = 1e-6
"""Least temperature and repetition penalty: divided by less, ordinary logits overflow."""


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen. Raises: ValueError for settings that no distribution can satisfy."""

    do_sample: bool = False
    """Draw by probability; otherwise take the likeliest, whatever temperature, top_k and top_p say."""
    temperature: float = 1.0
    """Flattens (above 1) or sharpens the distribution."""
    top_k: int = 0
    """Draw from this many likeliest tokens, of equal ones the lowest ids; 0 keeps all."""
    top_p: float = 1.0
    """Draw from the fewest likeliest tokens that make up this much probability."""
    repetition_penalty: float = 1.0
    """Above 1 makes tokens less likely that stand in the prompt or the output."""

    def __post_init__(self) -> None:
        _require("top_k", self.top_k, self.top_k >= 0, "a number from 0 on; 0 keeps all tokens")
        _require("top_p", self.top_p, 0 < self.top_p <= 1, "above 0 and at most 1; 1 keeps all tokens")
        for name in ("temperature", "repetition_penalty"):
            value = getattr(self, name)
            allowed = value >= SMALLEST or (name == "temperature" and value == 0 and not self.do_sample)
            must = f"a number from {SMALLEST} on; 1 changes nothing"
            _require(name, value, allowed and math.isfinite(value), must)


def penalize(logits_BV: Tensor, seen_BV: Tensor, penalty: float) -> Tensor:
    """Make tokens that were seen less likely: divide positive logits by the penalty, multiply negative ones.

    Source: CTRL, arXiv:1909.05858, section 4.1, in the form of transformers, which treats signs apart.
    """
    penalized = torch.where(logits_BV > 0, logits_BV / penalty, logits_BV * penalty)
    return torch.where(seen_BV, penalized, logits_BV)


def choose(logits_BV: Tensor, sampling: Sampling, generator: torch.Generator) -> Tensor:
    """Return one token (B) per row of float32 logits, on their device.

    Raises: ValueError if a row has no candidate, or logits that are not numbers.
    """
    best_B = logits_BV.argmax(dim=-1)  # of a row with NaN, its place
    if not bool(torch.isfinite(logits_BV.gather(1, best_B[:, None])).all()):
        raise ValueError(
            "logits must be numbers below infinity, and one of each row above minus infinity, found others; the "
            "weights are damaged or overflow"
        )
    if not sampling.do_sample or sampling.top_k == 1:
        return best_B
    tokens_BN, weights_BN = candidates(logits_BV.cpu(), sampling)
    cumulative_BN = weights_BN.cumsum(dim=-1)
    total_B1 = cumulative_BN[:, -1:]
    # 53 random bits are below 1, so the product is below the total, and the first sum above it is a candidate's.
    drawn_B1 = torch.rand(len(logits_BV), 1, dtype=torch.float64, generator=generator) * total_B1
    place_B1 = torch.searchsorted(cumulative_BN, drawn_B1, right=True)
    return tokens_BN.gather(1, place_B1).squeeze(1).to(logits_BV.device)


def candidates(logits_BV: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Return the tokens (B, N) that can be drawn and their weights (B, N), float64, in any scale.

    A weight of 0 marks a token that is none after all.
    """
    scores_BN = logits_BV.double() / sampling.temperature
    if 0 < sampling.top_k < logits_BV.shape[1]:
        tokens_BN = likeliest(logits_BV, sampling.top_k)
        scores_BN = scores_BN.gather(1, tokens_BN)
    else:
        tokens_BN = torch.arange(logits_BV.shape[1]).expand(len(logits_BV), -1)
    if sampling.top_p == 1:
        return tokens_BN, _weights(scores_BN)
    scores_BN, order_BN = scores_BN.sort(dim=-1, descending=True, stable=True)
    weights_BN = _weights(scores_BN)
    cumulative_BN = weights_BN.cumsum(dim=-1)
    # A token stays as long as those before it do not yet reach top_p; the first one always does.
    before_BN = torch.nn.functional.pad(cumulative_BN[:, :-1], (1, 0))
    weights_BN = weights_BN.masked_fill(before_BN >= sampling.top_p * cumulative_BN[:, -1:], 0.0)
    return tokens_BN.gather(1, order_BN), weights_BN


def likeliest(logits_BV: Tensor, count: int) -> Tensor:
    """Return the ids (B, count) of the largest logits, ascending; among equal ones the lowest ids win.

    `topk` alone leaves open which of equal logits it takes, and in bfloat16 many are equal.
    """
    edge_B1 = logits_BV.topk(count, dim=-1).values[:, -1:]
    above_BV, equal_BV = logits_BV > edge_B1, logits_BV == edge_B1
    free_B1 = count - above_BV.sum(dim=-1, keepdim=True)
    kept_BV = above_BV | (equal_BV & (equal_BV.cumsum(dim=-1) <= free_B1))
    return kept_BV.nonzero()[:, 1].view(len(logits_BV), count)


def _weights(scores_BN: Tensor) -> Tensor:
    return (scores_BN - scores_BN.amax(dim=-1, keepdim=True)).exp()


def _require(name: str, value: float, holds: bool, must: str) -> None:
    if not holds:
        raise ValueError(f"{name} must be {must}, found {value}")
