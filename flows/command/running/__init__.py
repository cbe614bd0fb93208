"""The verbs that run a recipe, or say what a run would do."""
