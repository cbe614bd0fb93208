"""Arrow's own files: one document per row."""
