"""How well a model predicts texts: the log-likelihood of every token, long texts cut into windows.

A document is read after an end-of-text token, as in training, and each of its tokens is predicted exactly once.
Tokens are taken in blocks of `max_seq_len`; each is predicted from those before it in its block and from the one
before the block, and the last, shorter block is given as much context as fits. The end-of-text token after a
document is not scored: the numbers are about the bytes of the text, as a compressor's are.

Source: the rule of lm-eval's `loglikelihood_rolling` (get_rolling_token_windows with context_len 1), so that its
bits per byte can be compared.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from model.layers.language_model import LanguageModel

LOGITS_AT_ONCE = 1 << 26
"""Logits computed at a time: 256 MB in float32, however large the vocabulary and the batch."""


@dataclass(frozen=True, slots=True)
class Window:
    """A piece of a document that the model reads at once.

    Positions count in the stream (end-of-text, token 0, token 1, ...): reading position p predicts token p.
    """

    document: int
    begin: int
    """First position that is read."""
    first: int
    """First token that is scored; what is read before it is context."""
    end: int
    """One past the last token that is scored, and one past the last position that is read."""


def windows(document: int, tokens: int, max_seq_len: int) -> Iterator[Window]:
    """Yield the windows that score each token of a document once."""
    for first in range(0, tokens, max_seq_len):
        end = min(first + max_seq_len, tokens)
        yield Window(document, max(0, end - max_seq_len), first, end)


@torch.inference_mode()
def score_documents(
    model: LanguageModel,
    documents: Sequence[Sequence[int]],
    eot_id: int,
    *,
    batch_tokens: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[float]:
    """Return the negative log-likelihood in nats of each document, given as token ids without end-of-text.

    `batch_tokens` bounds the positions of a batch (at least one window). `progress` is told scored tokens of all.
    Batches follow from the documents alone, so the same machine and thread count give the same numbers.
    """
    todo = [
        window
        for index, ids in enumerate(documents)
        for window in windows(index, len(ids), model.config.max_seq_len)
    ]
    # Longest first: a batch too large for the memory fails at once, and little is lost to padding.
    todo.sort(key=lambda window: window.begin - window.end)
    total = sum(window.end - window.first for window in todo)
    losses, done = [0.0] * len(documents), 0
    for batch in _batches(todo, batch_tokens):
        for window, loss in zip(batch, _score(model, documents, eot_id, batch), strict=True):
            losses[window.document] += loss
            done += window.end - window.first
        progress(done, total)
    return losses


def _batches(todo: Sequence[Window], batch_tokens: int) -> Iterator[Sequence[Window]]:
    start = 0
    while start < len(todo):
        longest = todo[start].end - todo[start].begin
        rows = max(1, batch_tokens // longest)
        yield todo[start : start + rows]
        start += rows


def _score(
    model: LanguageModel, documents: Sequence[Sequence[int]], eot_id: int, batch: Sequence[Window]
) -> list[float]:
    width = max(window.end - window.begin for window in batch)
    # Padding stands on the right, where no position that counts can see it.
    read_BT = torch.full((len(batch), width), eot_id)
    wanted_BT = torch.full((len(batch), width), -1)
    for row, window in enumerate(batch):
        ids = documents[window.document]
        read = [eot_id, *ids[: window.end - 1]] if window.begin == 0 else ids[window.begin - 1 : window.end - 1]
        read_BT[row, : len(read)] = torch.tensor(read)
        wanted_BT[row, window.first - window.begin : window.end - window.begin] = torch.tensor(
            ids[window.first : window.end]
        )
    device = next(model.parameters()).device
    hidden_BTC = model.hidden(read_BT.to(device))
    scored_BT = wanted_BT >= 0
    losses = _losses(model, hidden_BTC[scored_BT.to(device)], wanted_BT[scored_BT].to(device))
    row_lengths = [window.end - window.first for window in batch]
    return [float(part.sum()) for part in losses.split(row_lengths)]


def _losses(model: LanguageModel, hidden_NC: Tensor, wanted_N: Tensor) -> Tensor:
    size = max(1, LOGITS_AT_ONCE // model.config.vocab_size)
    pieces = [
        F.cross_entropy(model.logits(hidden).float(), wanted, reduction="none").cpu().double()
        for hidden, wanted in zip(hidden_NC.split(size), wanted_N.split(size), strict=True)
    ]
    return torch.cat(pieces)
