"""Decoders with rotary positions: Llama's block and GPT-NeoX's."""
