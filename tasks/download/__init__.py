"""Download: sources -> verified shards of even size."""
