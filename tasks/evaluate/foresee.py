"""What can be said of an evaluation before there is a model. Imports nothing heavy."""

from collections.abc import Mapping

from storage.artifacts.part_counts import part_counts
from storage.artifacts.store import Artifact
from storage.errors import InputError
from storage.formats.documents import DOCUMENTS, shard_prefix
from tasks.evaluate.config import EvaluateConfig


def check_held_out(config: EvaluateConfig, inputs: Mapping[str, Artifact]) -> None:
    """Raise InputError if the corpus is there and has no document in the split that is scored."""
    corpus = inputs.get("corpus")
    if corpus is None:
        return
    counts = part_counts(corpus, shard_prefix(config.split))
    if counts is not None and not any(counts[name] for name in counts if name.partition(".")[0] == DOCUMENTS):
        raise no_held_out_text(corpus, config.split)


def no_held_out_text(corpus: Artifact, split: str) -> InputError:
    """Return the error for a split without text."""
    return InputError(
        f"the split {split!r} of {corpus.ref} must hold documents to evaluate on, found none; give the download "
        f"stage {split} documents, as with a larger share to hold out (or were all dropped? see `pile show`), set "
        f"evaluate.split, or leave the evaluation out with a target such as `--target train`"
    )
