"""The proof that a tokenizer loses nothing: every text comes back unchanged from its tokens."""

from collections.abc import Iterable
from itertools import zip_longest
from pathlib import Path

from tokenizers import Tokenizer

from storage.errors import Fault

CHECKED_TEXTS = (
    "",
    " ",
    "The quick brown fox jumps over 13 lazy dogs; it's 100% sure.",
    "def f(x):\n\tif x:\n\t\treturn  {'a': [1, 2]}   # 4 spaces    \n\n\n",
    "Татар теле: әни җырлый, үзе өенә кайтты, яңа һава. Съешь же ещё этих мягких булок.",
    "敏捷的棕色狐狸跳过了懒狗。日本語のテキスト、한국어 텍스트.",
    "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 e\u0301 \u1e69 \u200d \ufe0f",
    "zero\0byte and \x7f\x1b[0m control",
    "line\r\nbreaks\rof\nevery\u2028kind\u0085",
    "\ufeffmark, no-break\u00a0space, \u3000wide,   three, trailing   ",
    "\U0001f600\U000e0041\U0010ffff \ue000 \ufffd \ud7ff",
    "a" * 3000 + " " * 3000 + "\n" * 300,
    "<|endoftext|><|reserved_0|> <|endoftext|>",
)
"""Each must come back unchanged: scripts, joined emoji, combining marks, NUL, every line end, spaces, all planes,
long runs, and the names of special tokens, which inside a text are text."""


def load_tokenizer(path: Path) -> Tokenizer:
    """Open a tokenizer so that the name of a special token inside a text is encoded like any other text."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.encode_special_tokens = True  # not part of the file
    return tokenizer


def check_round_trip(tokenizer: Tokenizer, special_count: int, texts: Iterable[str]) -> None:
    """Raise a Fault unless every text is what its tokens decode to, and none of them is special."""
    for text in texts:
        ids = tokenizer.encode_batch_fast([text])[0].ids
        if special := [token for token in ids if token < special_count]:
            raise Fault(
                f"a text must not be encoded with special tokens, found the ids {special[:5]} for {text[:80]!r}; "
                f"check the installed version of tokenizers"
            )
        decoded = tokenizer.decode(ids, skip_special_tokens=False)
        if decoded != text:
            pairs = enumerate(zip_longest(text, decoded))
            place = next(index for index, (wanted, found) in pairs if wanted != found)
            raise Fault(
                f"a text must come back unchanged from its tokens, but at character {place} of {text[:80]!r} "
                f"{text[place : place + 20]!r} became {decoded[place : place + 20]!r}; "
                f"check the installed version of tokenizers"
            )
