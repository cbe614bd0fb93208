"""Pack: token archive -> sequences of equal length."""
