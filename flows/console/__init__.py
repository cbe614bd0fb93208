"""What a run looks like while it goes on: on a terminal, in a file, as JSON."""
