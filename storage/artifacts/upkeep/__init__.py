"""Looking after a store: what is damaged, what may go, and what a person would miss."""
