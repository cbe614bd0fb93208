"""The verbs that look at the store, and after it."""
