"""Documents out of files that others wrote: strictly, with the position of every bad line."""
