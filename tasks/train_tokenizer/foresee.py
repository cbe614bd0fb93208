"""What can be said of a vocabulary before it is trained. Imports nothing heavy."""

from collections.abc import Mapping

from storage.artifacts.store import Artifact
from storage.errors import InputError
from storage.wording import size
from tasks.train_tokenizer.config import TrainTokenizerConfig


def check_vocabulary(config: TrainTokenizerConfig, inputs: Mapping[str, Artifact]) -> None:
    """Raise InputError if the corpus is there and cannot give so many tokens, however its text is written.

    All of its text is counted, although only the train split is taken: that stands in the manifest, while the
    counts of a split are in one record for each of thousands of shards.
    """
    corpus = inputs.get("corpus")
    text_bytes = None if corpus is None else corpus.counts.get("text_bytes")
    if corpus is None or text_bytes is None:
        return
    most = most_tokens(config, text_bytes)
    if most < config.vocab_size:
        raise InputError(
            f"{corpus.ref} must have text for a vocabulary of {config.vocab_size:,} tokens, found "
            f"{size(text_bytes)}, which can give {most:,} at the very most; set train_tokenizer.vocab_size well "
            f"below that, or add text"
        )


def most_tokens(config: TrainTokenizerConfig, text_bytes: int) -> int:
    """Return a vocabulary size that no text of so many bytes can exceed; real text gives far less.

    A merge joins a pair that occurs `min_frequency` times or more, of which half may overlap, as in a run of one
    letter: so many tokens fewer is the text then, and it began with one for each byte.
    """
    joined = -(-config.min_frequency // 2)
    return config.fixed_tokens + min(text_bytes, config.sample_bytes) // joined
