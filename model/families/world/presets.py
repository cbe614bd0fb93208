"""Named models of the world family."""

from collections.abc import Mapping

from model.families.world.config import WorldConfig
from storage.config import changed

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


PRESETS: Mapping[str, WorldConfig] = {
    "world-1m": WORLD_1M,
    "world-20m": WORLD_20M,
    "world-800m": WORLD_800M,
    "world-235b": WORLD_235B,
    "hybrid-1m": hybrid(WORLD_1M),
    "hybrid-20m": hybrid(WORLD_20M),
    "hybrid-800m": hybrid(WORLD_800M),
}

SMALL = changed(
    WORLD_1M, d_model=32, num_experts=4, top_k=2, d_expert=16, d_shared=16, context_window=8, vocab_size=64,
    max_seq_len=128,
)  # fmt: skip

TINY: Mapping[str, WorldConfig] = {
    "world": SMALL,
    "world-untied": changed(SMALL, tie_embeddings=False, allow_negative_eigenvalues=True),
    "world-plain": changed(SMALL, context_rank=0, n_tones=0, n_fields=0, n_superblocks=2),
    "hybrid": hybrid(SMALL),
    "hybrid-untied": changed(hybrid(SMALL), tie_embeddings=False),
}
