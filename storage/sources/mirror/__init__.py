"""A mirror in The Pile's layout, in a folder or at a URL."""
