"""World models as Hugging Face folders."""
