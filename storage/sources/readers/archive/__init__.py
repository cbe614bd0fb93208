"""Archives: files within a file, each read by the reader of its name."""
