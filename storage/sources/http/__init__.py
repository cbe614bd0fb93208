"""Fetching from mirrors on the network, and serving a folder on the loopback address."""
