"""Named models of the gpt2 family."""

from collections.abc import Mapping

from model.families.gpt2.config import GPT2Config

GPT2_124M = GPT2Config(n_layers=12, n_heads=12, d_model=768, vocab_size=50_257, max_seq_len=1024)

PRESETS: Mapping[str, GPT2Config] = {
    "gpt2-tiny": GPT2Config(n_layers=4, n_heads=6, d_model=192, vocab_size=4096, max_seq_len=256),
    "gpt2-124m": GPT2_124M,
}

TINY: Mapping[str, GPT2Config] = {
    "gpt2": GPT2Config(n_layers=2, n_heads=2, d_model=16, vocab_size=64, max_seq_len=128),
}
