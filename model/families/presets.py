"""Named models. A preset is a full config; a recipe takes its shape, and vocabulary and length from the data."""

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from model.families.base import Sized
from model.families.gpt2.config import GPT2Config
from model.families.registry import ModelShape
from model.families.rope.config import RopeConfig
from model.families.world.config import WorldConfig
from storage.config import Config, changed

GPT2_124M = GPT2Config(n_layers=12, n_heads=12, d_model=768, vocab_size=50_257, max_seq_len=1024)

TATAR_23M = RopeConfig(
    n_layers=6, n_heads=8, n_kv_heads=8, d_model=512, d_ff=1376, dropout=0.1, vocab_size=8192, max_seq_len=256
)

WORLD_1M = WorldConfig(
    n_superblocks=1, d_model=64, n_heads=4, n_kv_heads=2, head_dim=16, n_key_heads=2, key_dim=16, n_value_heads=4,
    value_dim=32, num_experts=16, top_k=3, d_expert=32, d_shared=32, context_rank=8, n_tones=6, n_fields=12,
    vocab_size=1024, max_seq_len=256,
)  # fmt: skip

WORLD_20M = changed(
    WORLD_1M, d_model=256, head_dim=64, n_key_heads=4, key_dim=32, n_value_heads=8, value_dim=64, d_expert=128,
    d_shared=128, context_rank=16, vocab_size=16_384, max_seq_len=512,
)  # fmt: skip

WORLD_800M = changed(
    WORLD_1M, n_superblocks=3, d_model=768, n_heads=6, head_dim=128, n_key_heads=6, key_dim=64, n_value_heads=12,
    value_dim=128, num_experts=32, top_k=5, d_expert=384, d_shared=384, context_rank=32, vocab_size=65_536,
    max_seq_len=2048,
)  # fmt: skip

WORLD_235B = changed(
    WORLD_1M, n_superblocks=12, d_model=4096, n_heads=32, head_dim=256, n_key_heads=16, key_dim=128,
    n_value_heads=64, value_dim=128, num_experts=256, top_k=42, d_expert=736, d_shared=736, context_rank=64,
    tie_embeddings=False, vocab_size=65_536, max_seq_len=4096,
)  # fmt: skip


def hybrid(world: WorldConfig) -> WorldConfig:
    """Return the variant that Qwen3-Next can express: no context layer, no heads, the softmax router."""
    return changed(world, router="softmax_aux", context_rank=0, n_tones=0, n_fields=0)


PRESETS: Mapping[str, GPT2Config | RopeConfig | WorldConfig] = {
    "demo": RopeConfig(vocab_size=4096, max_seq_len=256),
    "gpt2-tiny": GPT2Config(n_layers=4, n_heads=6, d_model=192, vocab_size=4096, max_seq_len=256),
    "gpt2-124m": GPT2_124M,
    "tatar-tiny": changed(TATAR_23M, n_layers=4, n_heads=4, n_kv_heads=4, d_model=128, d_ff=352),
    "tatar-23m": TATAR_23M,
    "tatar-large": changed(
        TATAR_23M,
        n_layers=12,
        n_heads=12,
        n_kv_heads=4,
        d_model=768,
        d_ff=2048,
        vocab_size=16_384,
        max_seq_len=512,
    ),
    "world-1m": WORLD_1M,
    "world-20m": WORLD_20M,
    "world-800m": WORLD_800M,
    "world-235b": WORLD_235B,
    "hybrid-1m": hybrid(WORLD_1M),
    "hybrid-20m": hybrid(WORLD_20M),
    "hybrid-800m": hybrid(WORLD_800M),
}


def find_preset(name: str) -> GPT2Config | RopeConfig | WorldConfig:
    """Return a preset. Raises: ValueError that lists the names."""
    if name not in PRESETS:
        raise ValueError(f"a model must be one of {', '.join(PRESETS)}, found {name!r}")
    return PRESETS[name]


def preset_shape(name: str) -> ModelShape:
    """Return the shape of a preset, for a recipe. Raises: ValueError that lists the names."""
    return TypeAdapter(ModelShape).validate_python(shape_fields(name))


def shape_fields(value: Any) -> Any:
    """Return the fields of a shape for what a recipe may write: a preset's name, or fields on top of a preset.

    `"world-1m"`, `{"preset": "world-1m", "top_k": 2}` and `{"n_layers": 8}` (of the rope family) are all shapes.

    Raises: ValueError for what is neither, an unknown preset, or a family that is not the preset's.
    """
    if isinstance(value, Config):
        return value
    if isinstance(value, str):
        value = {"preset": value}
    if not isinstance(value, Mapping):
        raise ValueError(
            f"a model must be the name of a preset ({', '.join(PRESETS)}) or the fields of one, "
            f"found {value!r:.200}"
        )
    name = value.get("preset")
    if name is None:
        return {"family": "rope", **value}
    if not isinstance(name, str):
        raise ValueError(f"preset must be the name of a model, one of {', '.join(PRESETS)}, found {name!r}")
    preset = {field: setting for field, setting in find_preset(name) if field not in Sized.model_fields}
    family = value.get("family", preset["family"])
    if family != preset["family"]:
        raise ValueError(f"family must be {preset['family']}, as preset {name} says, found {family}")
    return {**preset, **{field: setting for field, setting in value.items() if field != "preset"}}
