"""Dedup: documents -> documents without exact and near duplicates."""
