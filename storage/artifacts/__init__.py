"""Finished work in the store: where it is found, how it is written, kept, verified and traced back."""
