"""Recipes: everything a run needs, as functions that return a `Recipe`."""
