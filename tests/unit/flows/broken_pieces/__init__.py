"""A package whose pieces are no members of their seams; test_plugins.py installs it."""
