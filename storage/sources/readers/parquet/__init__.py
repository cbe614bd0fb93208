"""Parquet files: one document per row."""
