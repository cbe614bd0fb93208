"""Train: packed sequences -> weights."""
