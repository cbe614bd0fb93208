"""A decoder-only transformer, weight for weight the twin of transformers' `LlamaForCausalLM`.

Token embedding, `n_layers` of (RMSNorm, grouped-query attention with rotary positions, RMSNorm, SwiGLU), RMSNorm,
output head. No biases, no dropout. Nothing here depends on the training engine: parameters are initialized where
they are created, so the model can be built on the meta device and under `deepspeed.zero.Init`.

Shapes: B sequences, T tokens, V vocabulary, C d_model, F d_ff, H query heads, K key/value heads, D head width.

Source: LLaMA, arXiv:2302.13971; grouped queries, arXiv:2305.13245; initialization, GPT-2's 0.02 with residual
projections scaled by 1/sqrt(2 n_layers).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.config import ModelConfig

INIT_STD = 0.02


class Transformer(nn.Module):
    """Maps token ids (B, T) to the logits (B, T, V) of the next token at each position.

    A new model has random weights that follow from `torch.manual_seed` alone.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = Embedding(config.vocab_size, config.d_model)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.n_layers))
        self.norm = nn.RMSNorm(config.d_model, eps=config.norm_eps)
        self.head = None if config.tie_embeddings else Linear(config.d_model, config.vocab_size)

    def forward(self, ids: Tensor) -> Tensor:
        """Return logits (B, T, V) for ids (B, T).

        Raises: ValueError if T is more than `max_seq_len`.
        """
        return self.logits(self.hidden(ids))

    def hidden(self, ids: Tensor) -> Tensor:
        """Return what the head reads, (B, T, C)."""
        length = ids.shape[1]
        if length > self.config.max_seq_len:
            raise ValueError(
                f"a sequence must have at most max_seq_len={self.config.max_seq_len} tokens, found {length}; "
                f"cut it into windows"
            )
        x_BTC = self.embedding(ids)
        rotation = rotary_angles(length, self.config, ids.device)
        for layer in self.layers:
            x_BTC = layer(x_BTC, rotation)
        return self.norm(x_BTC)

    def logits(self, hidden: Tensor) -> Tensor:
        """Apply the output head: (..., C) to (..., V)."""
        if self.head is None:
            return F.linear(hidden, self.embedding.weight)
        return self.head(hidden)

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator | None = None) -> "Transformer":
        """Draw all weights again, in the order of construction; for a model that was built on the meta device.

        The parameters must be whole, not partitioned by ZeRO-3.
        """
        for module in self.modules():
            if isinstance(module, Embedding | Linear):
                nn.init.normal_(module.weight, std=module.init_std, generator=generator)
            elif isinstance(module, nn.RMSNorm):
                nn.init.ones_(module.weight)
        return self


class Embedding(nn.Embedding):
    """A token embedding that starts with small normal values."""

    init_std = INIT_STD

    def reset_parameters(self) -> None:
        """Draw the weights; called by the constructor, before an engine can partition them."""
        nn.init.normal_(self.weight, std=self.init_std)


class Linear(nn.Linear):
    """A bias-free projection that starts with small normal values."""

    def __init__(self, d_in: int, d_out: int, init_std: float = INIT_STD) -> None:
        self.init_std = init_std
        super().__init__(d_in, d_out, bias=False)

    def reset_parameters(self) -> None:
        """Draw the weights; called by the constructor, before an engine can partition them."""
        nn.init.normal_(self.weight, std=self.init_std)


class Layer(nn.Module):
    """One block: attention, then feed-forward, each on the normalized residual stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.d_model, eps=config.norm_eps)
        self.attention = Attention(config)
        self.feed_forward_norm = nn.RMSNorm(config.d_model, eps=config.norm_eps)
        self.feed_forward = FeedForward(config)

    def forward(self, x_BTC: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        """Return the residual stream after this block."""
        x_BTC = x_BTC + self.attention(self.attention_norm(x_BTC), rotation)
        return x_BTC + self.feed_forward(self.feed_forward_norm(x_BTC))


class Attention(nn.Module):
    """Causal attention in which groups of H / K query heads share a key/value head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.shared = config.n_kv_heads < config.n_heads
        self.q = Linear(config.d_model, config.n_heads * config.head_dim)
        self.k = Linear(config.d_model, config.n_kv_heads * config.head_dim)
        self.v = Linear(config.d_model, config.n_kv_heads * config.head_dim)
        self.out = Linear(config.n_heads * config.head_dim, config.d_model, residual_std(config))

    def forward(self, x_BTC: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        """Return what each position takes from itself and the positions before it, (B, T, C)."""
        batch, length, _ = x_BTC.shape
        q_BHTD = rotate(self._heads(self.q(x_BTC)), rotation)
        k_BKTD = rotate(self._heads(self.k(x_BTC)), rotation)
        v_BKTD = self._heads(self.v(x_BTC))
        y_BHTD = F.scaled_dot_product_attention(q_BHTD, k_BKTD, v_BKTD, is_causal=True, enable_gqa=self.shared)
        return self.out(y_BHTD.transpose(1, 2).reshape(batch, length, -1))

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], -1, self.head_dim).transpose(1, 2)


class FeedForward(nn.Module):
    """SwiGLU. Source: arXiv:2002.05202."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = Linear(config.d_model, config.d_ff)
        self.up = Linear(config.d_model, config.d_ff)
        self.down = Linear(config.d_ff, config.d_model, residual_std(config))

    def forward(self, x_BTC: Tensor) -> Tensor:
        """Return (B, T, C)."""
        return self.down(F.silu(self.gate(x_BTC)) * self.up(x_BTC))


def residual_std(config: ModelConfig) -> float:
    """Spread of the projections that add to the residual stream, 2 n_layers times in all."""
    return INIT_STD / (2 * config.n_layers) ** 0.5


def rotary_angles(length: int, config: ModelConfig, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return cosine and sine (T, D) of the rotation of each channel at each position, in float32.

    Computed in every pass: 0.1 % of a step, while a buffer would be lost on the meta device and a cached
    tensor from `inference_mode` could not be used in training. Source: RoFormer, arXiv:2104.09864, eq. 15.
    """
    channel = torch.arange(0, config.head_dim, 2, device=device, dtype=torch.float32)
    frequency = 1.0 / config.rope_theta ** (channel / config.head_dim)
    angle = torch.arange(length, device=device, dtype=torch.float32)[:, None] * frequency
    angle = torch.cat((angle, angle), dim=-1)
    return angle.cos(), angle.sin()


def rotate(x_BHTD: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate the channel pairs (i, i + D/2) by their position: Llama's pairing, not the paper's (2i, 2i + 1)."""
    cos_TD, sin_TD = (part.to(x_BHTD.dtype) for part in rotation)
    first, second = x_BHTD.chunk(2, dim=-1)
    return x_BHTD * cos_TD + torch.cat((-second, first), dim=-1) * sin_TD


def sequence_loss(logits: Tensor, targets: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return the summed cross entropy in nats (float32) and the number of targets that count.

    Shapes: logits (B, T, V), targets and mask (B, T). Where `mask` is False nothing is predicted. The mean is left
    to the caller, who alone knows over which micro-batches and processes it goes.
    """
    wanted = targets.masked_fill(~mask, -100)
    loss = F.cross_entropy(logits.float().flatten(0, 1), wanted.flatten(), ignore_index=-100, reduction="sum")
    return loss, mask.sum()
