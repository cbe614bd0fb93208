"""What the numbers in a token file mean, and the special tokens."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from storage.artifacts.records import JsonDict
from storage.errors import InputError
from storage.formats.parquet import corrupt_file

TOKENIZER, TOKENS, SEQUENCES = "tokenizer", "tokens", "sequences"
"""Roles of the files that hold a tokenizer, a token archive and packed sequences."""

EOT = "<|endoftext|>"
"""The special token at the end of every document."""
TONE, FIELD = "<|tone|>", "<|field|>"
"""The special tokens after a document at which a world model's heads read its tone and its field."""


@dataclass(frozen=True)
class TokenFormat:
    """What the numbers in a token file mean."""

    vocab_size: int
    eot_id: int
    tokenizer_sha256: str

    def __post_init__(self) -> None:
        if not 0 <= self.eot_id < self.vocab_size <= 2**31:
            raise InputError(
                f"a token format needs 0 <= eot_id < vocab_size <= 2^31, found eot_id {self.eot_id} and "
                f"vocab_size {self.vocab_size}; train another tokenizer"
            )

    @property
    def dtype(self) -> np.dtype[Any]:
        """Little-endian uint16 or int32, the narrower that holds every id."""
        return np.dtype("<u2") if self.vocab_size <= 65536 else np.dtype("<i4")


def read_token_format(path: Path, described: JsonDict) -> TokenFormat:
    """Return the token format of a file from its description. Raises: CorruptFileError."""
    try:
        return TokenFormat(**{field.name: described[field.name] for field in fields(TokenFormat)})
    except (KeyError, TypeError, ValueError) as error:
        raise corrupt_file(path, "must describe its token format", f"found {described} ({error!r})") from error
