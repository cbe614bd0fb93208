"""The order in which training reads sequences."""
