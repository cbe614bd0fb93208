"""Named models of the rope family."""

from collections.abc import Mapping

from model.families.rope.config import RopeConfig
from storage.config import changed

TATAR_23M = RopeConfig(
    n_layers=6, n_heads=8, n_kv_heads=8, d_model=512, d_ff=1376, dropout=0.1, vocab_size=8192, max_seq_len=256
)

PRESETS: Mapping[str, RopeConfig] = {
    "demo": RopeConfig(vocab_size=4096, max_seq_len=256),
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
}

SMALL = RopeConfig(n_layers=2, n_heads=4, n_kv_heads=2, d_model=32, d_ff=48, vocab_size=64, max_seq_len=128)

TINY: Mapping[str, RopeConfig] = {
    "swiglu": SMALL,
    "swiglu-untied": changed(SMALL, n_kv_heads=4, tie_embeddings=False),
    "gelu": changed(SMALL, n_kv_heads=4, feed_forward="gelu"),
    "gelu-untied": changed(SMALL, n_kv_heads=4, feed_forward="gelu", tie_embeddings=False),
}
