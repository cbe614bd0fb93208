"""What tells equal documents without their text."""

import xxhash


def exact_hash(text: str) -> bytes:
    """Return 16 bytes that are equal for equal texts; white space around the text does not count."""
    return xxhash.xxh3_128_digest(text.strip().encode())
