"""Rates as functions of the step."""
