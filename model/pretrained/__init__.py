"""Models as Hugging Face folders, both ways: each as the architecture of transformers that computes the same."""
