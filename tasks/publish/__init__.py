"""Publish: weights -> a Hugging Face folder."""
