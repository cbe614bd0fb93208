"""The layers of a world model one by one: 101 for `world-235b`.

Counted are the token embedding, the rotary positions (which have no parameters), every sublayer of mixer and
experts, the final norm, the pair of classification heads and the output head. A context layer is a component of
its superblock, not a layer of its own; its parameters stand in the row of the superblock's first sublayer.
"""

from typing import Any, NamedTuple

import torch
from torch import nn

from model.families.world.config import WorldConfig
from model.families.world.network import SIZE, WorldModel
from model.families.world.pattern import PATTERN

MIXERS = {"D": "Gated DeltaNet", "A": "gated attention"}


class LayerRow(NamedTuple):
    """One layer."""

    number: int
    layer: str
    content: str
    parameters: int
    """A tied head's belong to the embedding."""


def layer_rows(config: WorldConfig) -> list[dict[str, Any]]:
    """Return the layers of a config as plain data."""
    with torch.device("meta"):
        return [row._asdict() for row in layer_table(WorldModel(config))]


def layer_table(model: WorldModel) -> list[LayerRow]:
    """Return a row per layer of a model, which may be on the meta device; 8 per superblock and 5 around them."""
    config = model.config
    rows = [
        ("token_embedding", f"{config.vocab_size} tokens, width {config.d_model}", _size(model.embed_tokens)),
        ("rotary_positions", f"{config.rotary_dim} of {config.head_dim} channels, restart per document", 0),
    ]
    for index, layer in enumerate(model.layers):
        block, place = divmod(index, SIZE)
        context = model.context[block] if place == 0 and len(model.context) else None
        experts = f"{config.top_k} of {config.num_experts} experts + 1 shared"
        content = f"{MIXERS[PATTERN[place]]}, {experts}{' (and context layer)' if context is not None else ''}"
        rows.append((f"superblock_{block}.{place}", content, _size(layer) + _size(context)))
    heads = f"tone {config.n_tones}, field {config.n_fields}" if config.n_tones else "none in this variant"
    classification = _size(model.tone_head) + _size(model.field_head) if config.n_tones else 0
    rows += [
        ("final_norm", "zero-centred RMSNorm", _size(model.norm)),
        ("classification_heads", heads, classification),
        ("lm_head", "tied to the embedding" if config.tie_embeddings else "no bias", _size(model.lm_head)),
    ]
    return [LayerRow(number, *row) for number, row in enumerate(rows)]


def _size(module: nn.Module | None) -> int:
    return 0 if module is None else sum(parameter.numel() for parameter in module.parameters())
