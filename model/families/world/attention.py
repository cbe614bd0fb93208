"""Gated grouped-query attention, the A sublayers of the world family.

Parameter names and layout are those of transformers' `Qwen3NextAttention`.

Shapes: B sequences, T new tokens, S visible tokens, C d_model, H query heads, K key/value heads, D head width.

Source: Qwen3-Next of transformers; gated attention, arXiv:2505.06708; query-key norm, arXiv:2010.04245.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.families.world.trace import Trace
from model.layers.basic import Linear, ZeroCentredRMSNorm, residual_std, rotate
from model.layers.cache import KeyValues

if TYPE_CHECKING:
    from model.families.world.config import WorldConfig


class GatedAttention(nn.Module):
    """Causal attention whose result each head scales by a gate that it computes from its input."""

    def __init__(self, config: "WorldConfig") -> None:
        super().__init__()
        self.n_heads, self.n_kv_heads, self.head_dim = config.n_heads, config.n_kv_heads, config.head_dim
        d_queries, d_keys = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
        self.q_proj = Linear(config.d_model, 2 * d_queries)
        self.k_proj = Linear(config.d_model, d_keys)
        self.v_proj = Linear(config.d_model, d_keys)
        self.o_proj = Linear(d_queries, config.d_model, init_std=residual_std(config.n_layers))
        self.q_norm = ZeroCentredRMSNorm(config.head_dim, config.norm_eps)
        self.k_norm = ZeroCentredRMSNorm(config.head_dim, config.norm_eps)

    def forward(
        self,
        x_BTC: Tensor,
        rotation: tuple[Tensor, Tensor],
        mask: Tensor | None,
        causal: bool,
        bias_BHTS: Tensor | None = None,
        cache: KeyValues | None = None,
        trace: Trace | None = None,
    ) -> Tensor:
        """Return what each position takes from the visible ones, (B, T, C).

        `bias_BHTS` is added to the attention logits. The rotated queries (B, H, T, D) and keys (B, K, S, D) are
        left in `trace`.
        """
        batch, length, _ = x_BTC.shape
        # Per head the query comes first, then its gate.
        q_BTHD, gate_BTHD = self.q_proj(x_BTC).view(batch, length, self.n_heads, -1).chunk(2, dim=-1)
        q_BHTD = rotate(self.q_norm(q_BTHD).transpose(1, 2), rotation)
        k_BTKD = self.k_norm(self.k_proj(x_BTC).view(batch, length, self.n_kv_heads, self.head_dim))
        k_BKSD = rotate(k_BTKD.transpose(1, 2), rotation)
        v_BKSD = self.v_proj(x_BTC).view(batch, length, self.n_kv_heads, self.head_dim).transpose(1, 2)
        if cache is not None:
            k_BKSD, v_BKSD = cache.append(k_BKSD, v_BKSD)
        if trace is not None:
            trace.queries_keys.append((q_BHTD, k_BKSD))
        if bias_BHTS is not None:
            mask, causal = with_bias(mask, causal, bias_BHTS).to(q_BHTD.dtype), False
        shared = self.n_kv_heads < self.n_heads
        y_BHTD = F.scaled_dot_product_attention(q_BHTD, k_BKSD, v_BKSD, mask, is_causal=causal, enable_gqa=shared)
        y_BTHD = y_BHTD.transpose(1, 2) * torch.sigmoid(gate_BTHD)
        return self.o_proj(y_BTHD.reshape(batch, length, -1))


def with_bias(mask: Tensor | None, causal: bool, bias_BHTS: Tensor) -> Tensor:
    """Return the bias where a key is visible and minus infinity elsewhere."""
    if causal:
        length = bias_BHTS.shape[-1]
        mask = torch.ones(length, length, dtype=torch.bool, device=bias_BHTS.device).tril()
    return bias_BHTS if mask is None else bias_BHTS.masked_fill(~mask, -torch.inf)
