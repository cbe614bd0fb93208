"""Tokens as text to show."""

from collections.abc import Sequence

from tokenizers import Tokenizer


def readable_tokens(encoder: Tokenizer, ids: Sequence[int]) -> list[str]:
    """Return the text of each token; bytes that are only a part of a character as <E2>."""
    shown = []
    for token in ids:
        text, name = encoder.decode([token], skip_special_tokens=False), encoder.id_to_token(token) or ""
        if "\N{REPLACEMENT CHARACTER}" in text and all(letter in _BYTE_OF for letter in name):
            data = bytes(_BYTE_OF[letter] for letter in name)
            text = "".join(
                f"<{ord(char) - 0xDC00:02X}>" if 0xDC80 <= ord(char) <= 0xDCFF else char
                for char in data.decode(errors="surrogateescape")
            )
        shown.append(text)
    return shown


def _byte_letters() -> dict[str, int]:
    """Return the byte that each letter of a byte-level vocabulary stands for.

    Source: GPT-2's vocabulary. Bytes that are printable in Latin-1 stand for themselves, the others in their order
    for the letters from 256 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}


_BYTE_OF = _byte_letters()
