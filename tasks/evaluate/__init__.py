"""Evaluate: weights -> metrics, samples, report."""
