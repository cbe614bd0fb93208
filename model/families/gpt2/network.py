"""GPT-2 as published: learned positions, LayerNorm, GELU (tanh), biases, the token embedding as output head.

Parameter names are those of transformers' `GPT2LMHeadModel` without the prefix `transformer.`; its matrices are
stored transposed there.

Shapes: B sequences, T tokens, C d_model, H heads, D head width.

Source: Radford et al., Language Models are Unsupervised Multitask Learners (2019), section 2.3.
"""

from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional as F

from model.layers.basic import Embedding, Linear, project, residual_std
from model.layers.cache import BlockCache, Cache, KeyValues, attention_mask, number_documents, token_positions
from model.layers.language_model import LanguageModel

if TYPE_CHECKING:
    from model.families.gpt2.config import GPT2Config


class GPT2(LanguageModel):
    """The `gpt2` family."""

    config: "GPT2Config"

    def __init__(self, config: "GPT2Config") -> None:
        super().__init__()
        self.config = config
        self.wte = Embedding(config.vocab_size, config.d_model)
        self.wpe = Embedding(config.max_seq_len, config.d_model)
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.ln_f = nn.LayerNorm(config.d_model, eps=config.norm_eps)

    def hidden(self, ids_BT: Tensor, documents_BT: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        """Return what the head reads, (B, T, C)."""
        documents_BT = number_documents(documents_BT)
        positions = token_positions(ids_BT, documents_BT, cache)
        # No document is longer than its row, and of padded prompts the longest fills its row.
        self.check_length(ids_BT.shape[1] + (cache.length if cache is not None else 0))
        block = cache.blocks[0] if cache is not None else None
        mask, causal = attention_mask(ids_BT, documents_BT, block)
        x_BTC = self.wte(ids_BT) + self.wpe(positions)
        x_BTC = F.dropout(x_BTC, self.config.dropout, self.training)
        for number, layer in enumerate(self.h):
            x_BTC = layer(x_BTC, mask, causal, block.attention[number] if block else None)
        if cache is not None:
            cache.advance(ids_BT.shape[1], positions, documents_BT)
        return self.ln_f(x_BTC)

    def logits(self, hidden: Tensor) -> Tensor:
        """Apply the output head, which is the token embedding: (..., C) to (..., V)."""
        return project(hidden, self.wte.weight)

    def new_cache(self, capacity: int = 0) -> Cache:
        """Return an empty cache."""
        return Cache([BlockCache(self.config.n_layers, capacity=capacity)])


class Block(nn.Module):
    """Attention, then feed-forward, each on the normalized residual stream."""

    def __init__(self, config: "GPT2Config") -> None:
        super().__init__()
        self.dropout = config.dropout
        self.ln_1 = nn.LayerNorm(config.d_model, eps=config.norm_eps)
        self.attn = Attention(config)
        self.ln_2 = nn.LayerNorm(config.d_model, eps=config.norm_eps)
        self.mlp = FeedForward(config)

    def forward(self, x_BTC: Tensor, mask: Tensor | None, causal: bool, cache: KeyValues | None) -> Tensor:
        """Return the residual stream after this block."""
        attended = self.attn(self.ln_1(x_BTC), mask, causal, cache)
        x_BTC = x_BTC + F.dropout(attended, self.dropout, self.training)
        return x_BTC + F.dropout(self.mlp(self.ln_2(x_BTC)), self.dropout, self.training)


class Attention(nn.Module):
    """Causal multi-head attention with one projection for queries, keys and values."""

    def __init__(self, config: "GPT2Config") -> None:
        super().__init__()
        self.n_heads, self.dropout = config.n_heads, config.dropout
        self.c_attn = Linear(config.d_model, 3 * config.d_model, bias=True)
        self.c_proj = Linear(config.d_model, config.d_model, bias=True, init_std=residual_std(config.n_layers))

    def forward(self, x_BTC: Tensor, mask: Tensor | None, causal: bool, cache: KeyValues | None) -> Tensor:
        """Return what each position takes from itself and the positions before it, (B, T, C)."""
        batch, length, width = x_BTC.shape
        qkv = self.c_attn(x_BTC).view(batch, length, 3, self.n_heads, width // self.n_heads)
        q_BHTD, k_BHTD, v_BHTD = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        if cache is not None:
            k_BHTD, v_BHTD = cache.append(k_BHTD, v_BHTD)
        y_BHTD = F.scaled_dot_product_attention(
            q_BHTD, k_BHTD, v_BHTD, mask, self.dropout if self.training else 0.0, causal
        )
        return self.c_proj(y_BHTD.transpose(1, 2).reshape(batch, length, width))


class FeedForward(nn.Module):
    """Two projections around a GELU, in OpenAI's approximation by tanh. Source: arXiv:1606.08415."""

    def __init__(self, config: "GPT2Config") -> None:
        super().__init__()
        width = config.d_model
        self.c_fc = Linear(width, 4 * width, bias=True)
        self.c_proj = Linear(4 * width, width, bias=True, init_std=residual_std(config.n_layers))

    def forward(self, x_BTC: Tensor) -> Tensor:
        """Return (B, T, C)."""
        return self.c_proj(F.gelu(self.c_fc(x_BTC), approximate="tanh"))
