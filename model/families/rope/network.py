"""A decoder with rotary positions: Llama's block, or GPT-NeoX's with LayerNorm, GELU and biases.

Parameter names are those of transformers' `LlamaForCausalLM` without the prefix `model.`, in both forms.

Shapes: B sequences, T tokens, C d_model, F d_ff, H query heads, K key/value heads, D head width.

Source: LLaMA, arXiv:2302.13971; grouped queries, arXiv:2305.13245; GPT-NeoX, arXiv:2204.06745 with
`use_parallel_residual` off; initialization, GPT-2's 0.02 with residual projections scaled by 1/sqrt(2 n_layers).
"""

from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional as F

from model.layers.basic import Embedding, Linear, project, residual_std, rotary_angles, rotate
from model.layers.cache import BlockCache, Cache, KeyValues, attention_mask, number_documents, token_positions
from model.layers.language_model import LanguageModel

if TYPE_CHECKING:
    from model.families.rope.config import RopeConfig

Rotation = tuple[Tensor, Tensor]


class RopeModel(LanguageModel):
    """The `rope` family."""

    config: "RopeConfig"

    def __init__(self, config: "RopeConfig") -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = Embedding(config.vocab_size, config.d_model)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.n_layers))
        self.norm = build_norm(config)
        self.lm_head = None if config.tie_embeddings else Linear(config.d_model, config.vocab_size)

    def hidden(self, ids_BT: Tensor, documents_BT: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        """Return what the head reads, (B, T, C)."""
        documents_BT = number_documents(documents_BT)
        positions = token_positions(ids_BT, documents_BT, cache)
        cos, sin = rotary_angles(positions, self.config.head_dim, self.config.rope_theta)
        rotation = (cos, sin) if positions.dim() == 1 else (cos[:, None], sin[:, None])
        block = cache.blocks[0] if cache is not None else None
        mask, causal = attention_mask(ids_BT, documents_BT, block)
        x_BTC = F.dropout(self.embed_tokens(ids_BT), self.config.dropout, self.training)
        for number, layer in enumerate(self.layers):
            x_BTC = layer(x_BTC, rotation, mask, causal, block.attention[number] if block else None)
        if cache is not None:
            cache.advance(ids_BT.shape[1], positions, documents_BT)
        return self.norm(x_BTC)

    def logits(self, hidden: Tensor) -> Tensor:
        """Apply the output head: (..., C) to (..., V)."""
        if self.lm_head is None:
            return project(hidden, self.embed_tokens.weight)
        return self.lm_head(hidden)

    def new_cache(self, capacity: int = 0) -> Cache:
        """Return an empty cache."""
        return Cache([BlockCache(self.config.n_layers, capacity=capacity)])


class Layer(nn.Module):
    """Attention, then feed-forward, each on the normalized residual stream."""

    def __init__(self, config: "RopeConfig") -> None:
        super().__init__()
        self.dropout = config.dropout
        self.input_layernorm = build_norm(config)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = build_norm(config)
        self.mlp = SwiGLU(config) if config.feed_forward == "swiglu" else GELU(config)

    def forward(
        self, x_BTC: Tensor, rotation: Rotation, mask: Tensor | None, causal: bool, cache: KeyValues | None
    ) -> Tensor:
        """Return the residual stream after this layer."""
        attended = self.self_attn(self.input_layernorm(x_BTC), rotation, mask, causal, cache)
        x_BTC = x_BTC + F.dropout(attended, self.dropout, self.training)
        return x_BTC + F.dropout(self.mlp(self.post_attention_layernorm(x_BTC)), self.dropout, self.training)


class Attention(nn.Module):
    """Causal attention in which groups of H / K query heads share a key/value head."""

    def __init__(self, config: "RopeConfig") -> None:
        super().__init__()
        self.head_dim, self.dropout = config.head_dim, config.dropout
        self.shared = config.n_kv_heads < config.n_heads
        bias = config.feed_forward == "gelu"
        self.q_proj = Linear(config.d_model, config.n_heads * config.head_dim, bias=bias)
        self.k_proj = Linear(config.d_model, config.n_kv_heads * config.head_dim, bias=bias)
        self.v_proj = Linear(config.d_model, config.n_kv_heads * config.head_dim, bias=bias)
        std = residual_std(config.n_layers)
        self.o_proj = Linear(config.n_heads * config.head_dim, config.d_model, bias=bias, init_std=std)

    def forward(
        self, x_BTC: Tensor, rotation: Rotation, mask: Tensor | None, causal: bool, cache: KeyValues | None
    ) -> Tensor:
        """Return what each position takes from itself and the positions before it, (B, T, C)."""
        batch, length, _ = x_BTC.shape
        q_BHTD = rotate(self._heads(self.q_proj(x_BTC)), rotation)
        k_BKTD = rotate(self._heads(self.k_proj(x_BTC)), rotation)
        v_BKTD = self._heads(self.v_proj(x_BTC))
        if cache is not None:
            k_BKTD, v_BKTD = cache.append(k_BKTD, v_BKTD)
        dropout = self.dropout if self.training else 0.0
        y_BHTD = F.scaled_dot_product_attention(
            q_BHTD, k_BKTD, v_BKTD, mask, dropout, causal, enable_gqa=self.shared
        )
        return self.o_proj(y_BHTD.transpose(1, 2).reshape(batch, length, -1))

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], -1, self.head_dim).transpose(1, 2)


class SwiGLU(nn.Module):
    """Llama's feed-forward block. Source: arXiv:2002.05202."""

    def __init__(self, config: "RopeConfig") -> None:
        super().__init__()
        self.gate_proj = Linear(config.d_model, config.d_ff)
        self.up_proj = Linear(config.d_model, config.d_ff)
        self.down_proj = Linear(config.d_ff, config.d_model, init_std=residual_std(config.n_layers))

    def forward(self, x_BTC: Tensor) -> Tensor:
        """Return (B, T, C)."""
        return self.down_proj(F.silu(self.gate_proj(x_BTC)) * self.up_proj(x_BTC))


class GELU(nn.Module):
    """GPT-NeoX's feed-forward block, with the exact GELU. Source: arXiv:1606.08415."""

    def __init__(self, config: "RopeConfig") -> None:
        super().__init__()
        self.up_proj = Linear(config.d_model, config.d_ff, bias=True)
        std = residual_std(config.n_layers)
        self.down_proj = Linear(config.d_ff, config.d_model, bias=True, init_std=std)

    def forward(self, x_BTC: Tensor) -> Tensor:
        """Return (B, T, C)."""
        return self.down_proj(F.gelu(self.up_proj(x_BTC)))


def build_norm(config: "RopeConfig") -> nn.Module:
    """Return RMSNorm, or LayerNorm for the GELU form."""
    if config.feed_forward == "gelu":
        return nn.LayerNorm(config.d_model, eps=config.norm_eps)
    return nn.RMSNorm(config.d_model, eps=config.norm_eps)
