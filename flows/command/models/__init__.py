"""The verbs about models: on paper, and continuing texts."""
