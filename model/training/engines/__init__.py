"""What computes gradients and updates: plain torch, DeepSpeed."""
