"""What a tokenizer is trained on, and how large it becomes."""

from typing import Literal

from pydantic import Field, model_validator

from storage.config import Config


class TrainTokenizerConfig(Config):
    """What the tokenizer is trained on, and how large it becomes."""

    vocab_size: int = Field(default=32_768, ge=300, le=1 << 20)
    """Tokens in all, special ones and the 256 bytes included."""
    pattern: Literal["gpt2", "gpt4"] = "gpt4"
    """How text is split before merging; `gpt4` keeps at most three digits together, `gpt2` any number of them."""
    reserved_tokens: int = Field(default=0, ge=0)
    """Special tokens <|reserved_0|>, ... for fine-tuning later: they have ids but occur in no text."""
    min_frequency: int = Field(default=2, ge=1)
    """How often a pair must occur to become a token."""
    sample_bytes: int = Field(default=1 << 30, ge=1, le=2_000_000_000)
    """Upper bound of the text (UTF-8) to train on; a smaller corpus is taken whole.

    Below 2 GB no count of a pair can pass the 32-bit counters of the trainer, which would wrap in silence."""
    seed: int = 0
    """Chooses the documents of the sample."""

    @property
    def fixed_tokens(self) -> int:
        """Tokens that need no text: end-of-text, two probe tokens, the reserved ones and the 256 bytes."""
        return 3 + self.reserved_tokens + 256

    @model_validator(mode="after")
    def _has_room_for_all_bytes(self) -> "TrainTokenizerConfig":
        if self.vocab_size < self.fixed_tokens:
            raise ValueError(
                f"vocab_size must be at least {self.fixed_tokens}, for end-of-text, two probe tokens, "
                f"{self.reserved_tokens} reserved tokens and 256 bytes, found {self.vocab_size}; raise it or "
                f"lower reserved_tokens"
            )
        return self
