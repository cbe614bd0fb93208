"""The pipeline as people run it: recipes, the Prefect flow, the `pile` command."""
