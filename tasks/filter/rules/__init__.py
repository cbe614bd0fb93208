"""Rules that keep, drop or rewrite documents, one file each."""
