"""A trial: what filter and dedup say about some documents of some files, before anything is run."""
