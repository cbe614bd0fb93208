"""What is measured and sampled of a trained model."""

from typing import Literal

from pydantic import Field

from storage.config import Config


class EvaluateConfig(Config):
    """What is measured and sampled."""

    split: Literal["test", "val"] = "test"
    """Held-out documents that the model is scored on; `val` was watched during training."""
    max_bytes_per_subset: int = Field(default=1_000_000, ge=4)
    """Most UTF-8 bytes of one subset that are scored: its first documents, the last of them cut to fit."""
    batch_tokens: int = Field(default=8192, ge=1)
    """Tokens that the model reads at once; bounds the memory, though one window is always read whole."""
    prompts: tuple[str, ...] = ("",)
    """Texts that the model continues; with the empty one it begins by itself."""
    sample_tokens: int = Field(default=100, ge=1)
    """Tokens that are generated after each prompt, fewer if the text ends before."""
    temperature: float = Field(default=0.8, ge=0)
    """Flattens (above 1) or sharpens the distribution that samples are drawn from; 0 is greedy."""
    top_k: int = Field(default=0, ge=0)
    """Samples come from this many likeliest tokens; 0 keeps all."""
    top_p: float = Field(default=0.95, gt=0, le=1)
    """Samples come from the likeliest tokens that make up this much probability."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Decides the samples and nothing else."""
