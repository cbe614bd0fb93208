"""Plain torch in one process."""
