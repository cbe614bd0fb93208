"""How documents become tokens."""

from typing import TYPE_CHECKING

from storage.config import Config

if TYPE_CHECKING:
    pass


class TokenizeConfig(Config):
    """How documents become tokens: there is nothing to choose, the tokenizer decides."""
