"""What the families share: layers, cache, device, prompts."""
