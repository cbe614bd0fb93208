"""Source of the code that a published world model brings along; nothing here is imported by the pipeline."""
