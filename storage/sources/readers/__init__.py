"""Documents out of files that others wrote."""
