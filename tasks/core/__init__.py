"""What a stage is, how it is run, and the only glue to Prefect."""
