"""Train, save and load from a notebook."""
