"""The language model: architecture, loss, generation, scoring, export and the training engines."""
