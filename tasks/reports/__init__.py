"""What people read about results: counts, tables, Markdown."""
