"""Train a tokenizer on a bounded sample."""
