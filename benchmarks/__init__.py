"""Scripts behind every number that the documentation names; each prints JSON."""
