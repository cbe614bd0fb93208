"""Places that keep files: a local folder, an S3 prefix."""
