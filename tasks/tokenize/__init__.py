"""Tokenize: documents -> token archive."""
