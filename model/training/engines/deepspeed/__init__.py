"""DeepSpeed: a training spread over processes."""
