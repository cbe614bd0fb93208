"""One small piece for each seam of pile-pipeline."""
