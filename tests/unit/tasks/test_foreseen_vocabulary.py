"""A vocabulary that no text of that length can give is refused before it is trained."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.artifacts.store import Artifact, Store
from storage.artifacts.writer import ArtifactWriter
from storage.errors import InputError
from storage.formats.documents import DOCUMENTS
from tasks.train_tokenizer.build import bpe_trainer, untrained_tokenizer
from tasks.train_tokenizer.config import TrainTokenizerConfig
from tasks.train_tokenizer.foresee import most_tokens
from tasks.train_tokenizer.stage import STAGE

FIXED = 3 + 256


def corpus(tmp_path: Path, counts: dict[str, int]) -> Artifact:
    """A corpus with these counts; nobody has to read its text."""
    writer = ArtifactWriter(Store(str(tmp_path / "store")), "dedup", "0" * 16)
    path = writer.scratch() / "documents"
    path.write_text("unread")
    part = writer.commit("train-00000", {DOCUMENTS: path}, counts=counts)
    nothing = {"config": {}, "inputs": {}, "sources": {}, "recipe": {}, "libraries": {}}
    return writer.publish([part], version=1, run_id="r", code_commit="", started="", seconds=0.0, **nothing)


def foresee(config: TrainTokenizerConfig, found: Artifact) -> None:
    assert STAGE.foresee is not None
    STAGE.foresee(config, {"corpus": found})


def test_a_vocabulary_larger_than_the_text_is_refused_with_what_to_do(tmp_path: Path) -> None:
    found = corpus(tmp_path, {"text_bytes": 1000})
    foresee(TrainTokenizerConfig(vocab_size=FIXED + 1000), found)
    with pytest.raises(InputError, match=r"1,260 tokens, found 1.0 kB, .* 1,259 at the very most; set train_tok"):
        foresee(TrainTokenizerConfig(vocab_size=FIXED + 1001), found)


@pytest.mark.parametrize(
    ("fields", "most"),
    [
        ({"sample_bytes": 500}, 500),
        ({"reserved_tokens": 7}, 1007),
        ({"min_frequency": 5}, 333),
        ({"min_frequency": 1}, 1000),
    ],
)
def test_what_the_settings_leave_of_the_text_counts(fields: dict[str, int], most: int) -> None:
    assert most_tokens(TrainTokenizerConfig(vocab_size=400, **fields), 1000) == FIXED + most


def test_without_a_corpus_or_its_counts_nothing_is_said(tmp_path: Path) -> None:
    assert STAGE.foresee is not None
    STAGE.foresee(TrainTokenizerConfig(), {})
    foresee(TrainTokenizerConfig(), corpus(tmp_path, {"documents": 3}))


@settings(max_examples=40, deadline=None)
@given(st.text("ab \n1é", max_size=60), st.integers(1, 4), st.sampled_from(["gpt2", "gpt4"]))
def test_no_text_gives_more_tokens_than_foreseen(text: str, min_frequency: int, pattern: str) -> None:
    config = TrainTokenizerConfig(vocab_size=4000, min_frequency=min_frequency, pattern=pattern)
    tokenizer = untrained_tokenizer(pattern)
    tokenizer.train_from_iterator([text], bpe_trainer(config, ["a0", "b0", "c0"]))
    assert tokenizer.get_vocab_size() <= most_tokens(config, len(text.encode()))
