"""What is measured and shown of world models alone."""
