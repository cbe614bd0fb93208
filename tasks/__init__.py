"""The stages of the pipeline, one file each, and what binds them to the store and to Prefect."""
