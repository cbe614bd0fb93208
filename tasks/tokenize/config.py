"""How documents become tokens."""

from storage.config import Config


class TokenizeConfig(Config):
    """How documents become tokens: there is nothing to choose, the tokenizer decides."""
