"""A run of the pipeline: what is asked for, its stages one by one, what is told and written of it."""
