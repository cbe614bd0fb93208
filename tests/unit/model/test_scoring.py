"""Scoring against a loop that computes each token on its own."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.evaluation.scoring import score_documents, windows
from model.families.rope.config import RopeConfig
from model.families.rope.network import RopeModel

LENGTH = 8
EOT = 0
CONFIG = RopeConfig(vocab_size=31, n_layers=2, n_heads=2, n_kv_heads=1, d_model=16, d_ff=24, max_seq_len=LENGTH)


def model() -> RopeModel:
    torch.set_num_threads(1)
    torch.manual_seed(5)
    network = RopeModel(CONFIG)
    with torch.no_grad():
        network.embed_tokens.weight.mul_(20)
    return network


MODEL = model()


def slow_loss(ids: list[int]) -> float:
    """One forward pass per token, from the rule as it is stated in the report."""
    stream, loss = [EOT, *ids], 0.0
    for position, token in enumerate(ids):
        block_end = min((position // LENGTH + 1) * LENGTH, len(ids))
        context = stream[max(0, block_end - LENGTH) : position + 1]
        with torch.inference_mode():
            logits = MODEL(torch.tensor([context]))[0, -1].double()
        loss -= float(logits.log_softmax(-1)[token])
    return loss


@given(tokens=st.integers(0, 70), max_seq_len=st.integers(2, 20))
def test_windows_score_each_token_once_and_fit(tokens: int, max_seq_len: int) -> None:
    found = list(windows(0, tokens, max_seq_len))
    assert [token for window in found for token in range(window.first, window.end)] == list(range(tokens))
    for window in found:
        assert 0 <= window.begin <= window.first < window.end <= window.begin + max_seq_len


@settings(max_examples=25, deadline=None)
@given(
    documents=st.lists(st.lists(st.integers(1, 30), max_size=3 * LENGTH + 2), max_size=6),
    batch_tokens=st.integers(1, 60),
)
def test_losses_equal_a_loop_over_tokens(documents: list[list[int]], batch_tokens: int) -> None:
    found = score_documents(MODEL, documents, EOT, batch_tokens=batch_tokens)
    assert found == pytest.approx([slow_loss(ids) for ids in documents], rel=1e-5)


def test_losses_are_the_same_when_logits_are_computed_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    documents = [[5, 6, 7] * 9, [1], [2] * 8]
    whole = score_documents(MODEL, documents, EOT, batch_tokens=64)
    monkeypatch.setattr("model.evaluation.scoring.LOGITS_AT_ONCE", 3 * CONFIG.vocab_size)
    assert score_documents(MODEL, documents, EOT, batch_tokens=64) == pytest.approx(whole, rel=1e-6)


def test_losses_are_bit_for_bit_the_same_twice() -> None:
    documents = [[token % 30 + 1 for token in range(length)] for length in (3, 20, 8, 9, 1)]
    first = score_documents(MODEL, documents, EOT, batch_tokens=32)
    assert score_documents(MODEL, documents, EOT, batch_tokens=32) == first


def test_progress_ends_with_all_tokens() -> None:
    told: list[tuple[int, int]] = []
    score_documents(
        MODEL, [[1] * 20, [2] * 3], EOT, batch_tokens=8, progress=lambda done, total: told.append((done, total))
    )
    assert told[-1] == (23, 23)
    assert told == sorted(told)
