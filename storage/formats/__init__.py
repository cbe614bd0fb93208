"""What lies in the files: documents, signatures, tokenizers, tokens, packed sequences."""
