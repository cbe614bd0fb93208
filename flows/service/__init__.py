"""Prefect on this machine: a server for one command, or with its UI and workers."""
