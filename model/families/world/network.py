"""The world model: superblocks of Gated DeltaNet and gated attention with experts after each, and two heads.

    x = x + mixer(norm(x));  x = x + experts(norm(x))        8 times per superblock, mixers `DDDADDDA`

At the start of a superblock the context layer scores every token; the scores bias the superblock's attention and
gate what its DeltaNet layers write. Parameter names are those of transformers' `Qwen3NextForCausalLM` without the
prefix `model.`; `context`, `tone_head`, `field_head` and the routers' bias are ours.

Shapes: B sequences, T tokens, K visible keys, C d_model, V vocabulary.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from model.families.world.attention import GatedAttention
from model.families.world.balance import (
    expert_loads,
    imbalance,
    load_metrics,
    router_loss,
    update_expert_biases,
)
from model.families.world.context.block_cache import ContextBlockCache
from model.families.world.context.layer import ContextLayer
from model.families.world.context.utility import mean_utility_loss, sample_places
from model.families.world.delta_net import DeltaState, GatedDeltaNet
from model.families.world.experts import MixtureOfExperts
from model.families.world.forward_context import ForwardContext, SuperblockContext
from model.families.world.pattern import PATTERN
from model.families.world.trace import Trace
from model.layers.basic import Embedding, Linear, ZeroCentredRMSNorm, project, rotary_angles
from model.layers.cache import Cache, attention_mask, number_documents, token_positions
from model.layers.language_model import GroupOptions, LanguageModel

if TYPE_CHECKING:
    from model.families.world.config import WorldConfig

SIZE = len(PATTERN)
"""Sublayers of a superblock."""

GAIN_RATE = 10.0
"""Factor on the learning rate of the context layer's gains: they start at zero with tiny gradients."""


class WorldModel(LanguageModel):
    """The `world` family."""

    config: "WorldConfig"

    def __init__(self, config: "WorldConfig") -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = Embedding(config.vocab_size, config.d_model)
        self.layers = nn.ModuleList(
            Sublayer(config, place) for _ in range(config.n_superblocks) for place in range(SIZE)
        )
        blocks = config.n_superblocks if config.context_rank else 0
        self.context = nn.ModuleList(ContextLayer(config) for _ in range(blocks))
        self.norm = ZeroCentredRMSNorm(config.d_model, config.norm_eps)
        self.lm_head = None if config.tie_embeddings else Linear(config.d_model, config.vocab_size)
        self.loads_LE: Tensor | None = None
        """Tokens that chose each expert in the last update, over all processes."""
        self.places_Q: Tensor | None = None
        """Places whose queries teach the context layers in this update; without them each pass draws its own."""
        if config.n_tones:
            self.tone_head = Linear(config.d_model, config.n_tones, bias=True)
            self.field_head = Linear(config.d_model, config.n_fields, bias=True)

    def hidden(
        self,
        ids_BT: Tensor,
        documents_BT: Tensor | None = None,
        cache: Cache | None = None,
        trace: Trace | None = None,
    ) -> Tensor:
        """Return what the heads read, (B, T, C); fills `trace`."""
        documents_BT = number_documents(documents_BT)
        positions = token_positions(ids_BT, documents_BT, cache)
        cos, sin = rotary_angles(positions, self.config.rotary_dim, self.config.rope_theta)
        rotation = (cos, sin) if positions.dim() == 1 else (cos[:, None], sin[:, None])
        x_BTC = self.embed_tokens(ids_BT)
        for number in range(self.config.n_superblocks):
            block = cast("ContextBlockCache", cache.blocks[number]) if cache is not None else None
            mask, causal = attention_mask(ids_BT, documents_BT, block)
            context = None
            if self.context:
                layer, window = self.context[number], self.config.context_window
                context = SuperblockContext(layer, window, x_BTC, block)
            shared = ForwardContext(rotation, mask, causal, documents_BT, context, block, trace)
            for place in range(SIZE):
                x_BTC = self.layers[number * SIZE + place](x_BTC, shared)
            if trace is not None and context is not None:
                trace.contexts.append(context.scores)
        if cache is not None:
            cache.advance(ids_BT.shape[1], positions, documents_BT)
        return self.norm(x_BTC)

    def logits(self, hidden: Tensor) -> Tensor:
        """Apply the output head: (..., C) to (..., V)."""
        if self.lm_head is None:
            return project(hidden, self.embed_tokens.weight)
        return self.lm_head(hidden)

    def new_cache(self, capacity: int = 0) -> Cache:
        """Return an empty cache: a block per superblock, whose attention layers keep the same keys."""
        attention, window = PATTERN.count("A"), self.config.context_window
        return Cache(
            [
                ContextBlockCache(attention, [DeltaState() for _ in range(SIZE - attention)], capacity, window)
                for _ in range(self.config.n_superblocks)
            ]
        )

    def before_step(self, seed: int, length: int) -> None:
        """Draw the places whose queries teach the context layers."""
        if self.context:
            generator = torch.Generator().manual_seed(seed)
            self.places_Q = sample_places(length, self.device, generator=generator)

    def training_pass(self, ids_BT: Tensor, documents_BT: Tensor | None = None) -> tuple[Tensor, Trace]:
        """Return `hidden` and the trace of routers and context layers."""
        trace = Trace()
        return self.hidden(ids_BT, documents_BT, trace=trace), trace

    def auxiliary_losses(
        self, trace: Trace, documents_BT: Tensor | None, weights: Mapping[str, float]
    ) -> dict[str, Tensor]:
        """Return the losses of the routers, and what the context layers fail to predict."""
        losses = {"router_loss": router_loss(trace.routers)}
        if trace.contexts and weights.get("utility_loss", 1.0):
            window, documents_BT = self.config.context_window, number_documents(documents_BT)
            losses["utility_loss"] = mean_utility_loss(
                trace.contexts, trace.queries_keys, window, documents_BT, self.places_Q
            )
        return losses

    def head_logits(self, hidden: Tensor) -> dict[str, Tensor]:
        """Apply the heads for tone and field."""
        if not self.config.n_tones:
            return {}
        read = hidden.detach() if self.config.classification_detach else hidden
        return {"tone": self.tone_head(read), "field": self.field_head(read)}

    def after_step(self, total: Callable[[Sequence[float]], list[float]], balance_rate: float) -> None:
        """Favour idle experts."""
        loads_LE = expert_loads(self)
        summed = total(loads_LE.flatten().tolist())
        self.loads_LE = torch.tensor(summed, dtype=torch.float64).view_as(loads_LE)
        update_expert_biases(self, self.loads_LE, balance_rate)

    def step_metrics(self) -> dict[str, float]:
        """Return the load of the experts."""
        return {} if self.loads_LE is None else load_metrics(self, self.loads_LE)

    def warning(self, metrics: Mapping[str, float], step: int) -> str:
        """Say which experts do not share the work, once they have had time to."""
        return imbalance(metrics, step)

    def group_options(self, name: str, parameter: nn.Parameter) -> GroupOptions:
        """Let the gains of the context layer learn faster, without decay."""
        if name.rpartition(".")[2].startswith("gain_"):
            return GroupOptions(decays=False, rate=GAIN_RATE)
        return super().group_options(name, parameter)


class Sublayer(nn.Module):
    """A mixer, then experts, each on the normalized residual stream."""

    def __init__(self, config: "WorldConfig", place: int) -> None:
        super().__init__()
        self.kind = PATTERN[place]
        self.number = PATTERN[:place].count(self.kind)
        """How many sublayers of this kind stand before it in its superblock."""
        self.is_last = place == SIZE - 1
        self.input_layernorm = ZeroCentredRMSNorm(config.d_model, config.norm_eps)
        if self.kind == "A":
            self.self_attn = GatedAttention(config)
        else:
            self.linear_attn = GatedDeltaNet(config)
        self.post_attention_layernorm = ZeroCentredRMSNorm(config.d_model, config.norm_eps)
        self.mlp = MixtureOfExperts(config)

    def forward(self, x_BTC: Tensor, shared: ForwardContext) -> Tensor:
        """Return the residual stream after this sublayer."""
        mixer = self._attend if self.kind == "A" else self._remember
        x_BTC = x_BTC + mixer(self.input_layernorm(x_BTC), shared)
        return x_BTC + self.mlp(self.post_attention_layernorm(x_BTC), shared.trace)

    def _attend(self, x_BTC: Tensor, shared: ForwardContext) -> Tensor:
        watched = shared.context is not None and self.is_last
        return self.self_attn(
            x_BTC,
            shared.rotation,
            shared.mask,
            shared.causal,
            shared.context.attention_bias(self.number) if shared.context is not None else None,
            shared.cache.attention[self.number] if shared.cache is not None else None,
            shared.trace if watched else None,
        )

    def _remember(self, x_BTC: Tensor, shared: ForwardContext) -> Tensor:
        return self.linear_attn(
            x_BTC,
            shared.documents_BT,
            shared.context.write_gate(self.number) if shared.context is not None else None,
            shared.cache.states[self.number] if shared.cache is not None else None,
        )
