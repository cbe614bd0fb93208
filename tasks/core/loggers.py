"""The loggers whose lines people see. Imports nothing, so that the command line can show lines at once."""

LOGGERS = ("storage", "tasks", "model", "flows", "datatrove")
"""Ours, and datatrove's as forwarded by tasks.executors."""
