"""The text that a Python installation carries: a corpus without a network."""
