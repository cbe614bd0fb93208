"""The Eisenhower context layer: scores of tokens, what follows from them, and how they are learned."""
