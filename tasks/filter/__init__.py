"""Filter: documents -> the documents that their subset's policy keeps."""
