"""The `pile` command: reads arguments, prints results."""
