"""What lies in the files: documents, shingles, tokenizers, tokens, packed sequences."""
