"""How well a model predicts texts."""
