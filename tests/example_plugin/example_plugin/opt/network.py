"""The network of an OPT.

Shapes: B sequences, T tokens, C d_model, H heads, D head width.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from example_plugin.opt.config import OPTConfig
from model.layers.basic import Embedding, Linear, project, residual_std
from model.layers.cache import BlockCache, Cache, KeyValues, attention_mask, number_documents, token_positions
from model.layers.language_model import LanguageModel


class OPT(LanguageModel):
    """The network."""

    def __init__(self, config: OPTConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = Embedding(config.vocab_size, config.d_model)
        self.embed_positions = Embedding(config.max_seq_len, config.d_model)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.n_layers))
        self.final_layer_norm = nn.LayerNorm(config.d_model)

    def hidden(self, ids_BT: Tensor, documents_BT: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        """Return what the head reads, (B, T, C)."""
        documents_BT = number_documents(documents_BT)
        positions = token_positions(ids_BT, documents_BT, cache)
        self.check_length(ids_BT.shape[1] + (cache.length if cache is not None else 0))
        block = cache.blocks[0] if cache is not None else None
        mask, causal = attention_mask(ids_BT, documents_BT, block)
        x_BTC = self.embed_tokens(ids_BT) + self.embed_positions(positions)
        for number, layer in enumerate(self.layers):
            x_BTC = layer(x_BTC, mask, causal, block.attention[number] if block else None)
        if cache is not None:
            cache.advance(ids_BT.shape[1], positions, documents_BT)
        return self.final_layer_norm(x_BTC)

    def logits(self, hidden: Tensor) -> Tensor:
        """Apply the output head, which is the token embedding: (..., C) to (..., V)."""
        return project(hidden, self.embed_tokens.weight)

    def new_cache(self, capacity: int = 0) -> Cache:
        """Return an empty cache."""
        return Cache([BlockCache(self.config.n_layers, capacity=capacity)])


class Layer(nn.Module):
    """Attention, then feed-forward, each on the normalized residual stream."""

    def __init__(self, config: OPTConfig) -> None:
        super().__init__()
        width, std = config.d_model, residual_std(config.n_layers)
        self.self_attn = Attention(config)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.fc1 = Linear(width, 4 * width, bias=True)
        self.fc2 = Linear(4 * width, width, bias=True, init_std=std)
        self.final_layer_norm = nn.LayerNorm(width)

    def forward(self, x_BTC: Tensor, mask: Tensor | None, causal: bool, cache: KeyValues | None) -> Tensor:
        """Return the residual stream after this layer."""
        x_BTC = x_BTC + self.self_attn(self.self_attn_layer_norm(x_BTC), mask, causal, cache)
        return x_BTC + self.fc2(F.relu(self.fc1(self.final_layer_norm(x_BTC))))


class Attention(nn.Module):
    """Causal multi-head attention."""

    def __init__(self, config: OPTConfig) -> None:
        super().__init__()
        self.n_heads, width = config.n_heads, config.d_model
        self.q_proj, self.k_proj, self.v_proj = (Linear(width, width, bias=True) for _ in range(3))
        self.out_proj = Linear(width, width, bias=True, init_std=residual_std(config.n_layers))

    def forward(self, x_BTC: Tensor, mask: Tensor | None, causal: bool, cache: KeyValues | None) -> Tensor:
        """Return what each position takes from itself and the positions before it, (B, T, C)."""
        parts = (self.q_proj(x_BTC), self.k_proj(x_BTC), self.v_proj(x_BTC))
        q_BHTD, k_BHTD, v_BHTD = (part.unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for part in parts)
        if cache is not None:
            k_BHTD, v_BHTD = cache.append(k_BHTD, v_BHTD)
        y_BHTD = F.scaled_dot_product_attention(q_BHTD, k_BHTD, v_BHTD, mask, is_causal=causal)
        return self.out_proj(y_BHTD.transpose(1, 2).flatten(2))
