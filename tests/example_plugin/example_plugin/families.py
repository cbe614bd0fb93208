"""A model family in one file: OPT, a decoder with learned positions, LayerNorm before each half and ReLU.

Shapes: B sequences, T tokens, C d_model, H heads, D head width.

Source: OPT, arXiv:2205.01068; parameter names are those of transformers' `OPTForCausalLM` without their prefix.
"""

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from model.export.architecture import Architecture, CardText, Tensors
from model.export.fields import Fields
from model.export.tensors import LazyTensors, renamed
from model.families.base import Family, ModelConfig, ModelShape
from model.families.formulas import Formulas
from model.layers.basic import Embedding, Linear, project, residual_std
from model.layers.cache import BlockCache, Cache, KeyValues, attention_mask, number_documents, token_positions
from model.layers.language_model import LanguageModel

PREFIX = "model.decoder."
POSITIONS = "embed_positions.weight"
OFFSET = 2
"""Rows of transformers' position table that no token uses."""


class OPTShape(ModelShape):
    """OPT as published, in any size."""

    learned_positions: ClassVar[bool] = True

    family: Literal["opt"] = "opt"
    n_layers: int = Field(default=2, ge=1)
    """Blocks of attention and feed-forward."""
    n_heads: int = Field(default=4, ge=1)
    """Heads of one attention layer."""
    d_model: int = Field(default=64, ge=1)
    """Width of the residual stream; the feed-forward blocks are four times as wide."""

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        if self.d_model % self.n_heads:
            raise ValueError(f"d_model must be a multiple of n_heads, found {self.d_model} and {self.n_heads}")
        return self


class OPTConfig(OPTShape, ModelConfig):
    """An OPT that can be built."""


class OPTFormulas(Formulas):
    """Numbers of an OPT."""

    def __init__(self, config: OPTConfig) -> None:
        self.config = config
        self.layers = self.attention_layers = config.n_layers
        self.width = self.query_width = self.kv_width = config.d_model

    def parameters_by_kind(self) -> dict[str, int]:
        """Return the parameters by what they are for."""
        width = self.width
        return {
            "embedding_and_head": self.config.vocab_size * width,
            "positions": self.config.max_seq_len * width,
            "attention": self.layers * 4 * (width + 1) * width,
            "feed_forward": self.layers * (8 * width + 5) * width,
            "norms": (2 * self.layers + 1) * 2 * width,
        }

    def looked_up_parameters(self) -> int:
        """Return the learned positions."""
        return self.config.max_seq_len * self.width


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


class OPTForCausalLM(Architecture[OPTConfig]):
    """Hugging Face's OPT."""

    name = "OPTForCausalLM"
    model_type = "opt"
    tied = ("lm_head.weight", PREFIX + "embed_tokens.weight")
    card = CardText("A decoder-only transformer (OPT architecture)", ("opt",), ())

    def to_tensors(self, tensors: Tensors, config: OPTConfig) -> LazyTensors:
        """Return the tensors on disk: the position table has two rows before ours."""

        def maker(name: str) -> Any:
            pad = (0, 0, OFFSET, 0) if name == POSITIONS else (0, 0)
            return lambda: F.pad(tensors[name], pad)

        return LazyTensors({PREFIX + name: maker(name) for name in tensors})

    def from_tensors(self, tensors: Tensors, config: OPTConfig) -> LazyTensors:
        """Return our state dict."""
        ours = renamed(tensors, lambda name: name.removeprefix(PREFIX))

        def maker(name: str) -> Any:
            return lambda: ours[name][OFFSET if name == POSITIONS else 0 :]

        return LazyTensors({name: maker(name) for name in ours})

    def write_config(self, config: OPTConfig) -> dict[str, Any]:
        """Return config.json."""
        return {
            "activation_function": "relu",
            "architectures": [self.name],
            "do_layer_norm_before": True,
            "dropout": 0.0,
            "ffn_dim": 4 * config.d_model,
            "hidden_size": config.d_model,
            "max_position_embeddings": config.max_seq_len,
            "model_type": self.model_type,
            "num_attention_heads": config.n_heads,
            "num_hidden_layers": config.n_layers,
            "vocab_size": config.vocab_size,
            "word_embed_proj_dim": config.d_model,
        }

    def read_config(self, fields: Fields) -> OPTConfig:
        """Return our config."""
        width = fields.take_size("hidden_size", 768)
        fields.take("dropout", 0.1)
        fields.expect("activation_function", "relu", "relu")
        fields.expect("do_layer_norm_before", True, True)
        fields.expect("ffn_dim", 4 * width, 3072)
        fields.expect("word_embed_proj_dim", width, width)
        return fields.config(
            OPTConfig,
            vocab_size=fields.take("vocab_size", 50_272),
            max_seq_len=fields.take("max_position_embeddings", 2048),
            n_layers=fields.take("num_hidden_layers", 12),
            n_heads=fields.take("num_attention_heads", 12),
            d_model=width,
        )


class OPTFamily(Family[OPTConfig]):
    """The member of the registry."""

    name = "opt"
    shape = OPTShape
    config = OPTConfig
    formulas = OPTFormulas
    presets: ClassVar = {"opt-tiny": OPTConfig(vocab_size=4096, max_seq_len=256)}
    tiny: ClassVar = {"opt": OPTConfig(d_model=16, vocab_size=64, max_seq_len=128)}

    def build(self, config: OPTConfig) -> LanguageModel:
        """Return a new model."""
        return OPT(config)

    def architectures(self) -> tuple[Architecture[OPTConfig], ...]:
        """Return the architecture of transformers."""
        return (OPTForCausalLM(),)


FAMILY = OPTFamily()
