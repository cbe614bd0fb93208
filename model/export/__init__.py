"""What families share when they are written for, and read from, other libraries."""
