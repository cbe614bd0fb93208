"""Rules that drop documents, one file each."""
