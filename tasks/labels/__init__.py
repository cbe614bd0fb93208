"""Weak labels of documents: tone and field."""
