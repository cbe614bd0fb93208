"""Continue token sequences with a trained model.

Shapes: B sequences of equal length, T prompt tokens, N new tokens, V vocabulary.
"""

import torch
from torch import Tensor

from model.transformer import Transformer


@torch.inference_mode()
def generate(
    model: Transformer,
    ids: Tensor,
    max_new_tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    stop_token: int | None = None,
    used_vocab: int | None = None,
) -> Tensor:
    """Return `ids` (B, T) with up to `max_new_tokens` more tokens, (B, T + N), on the CPU.

    Temperature 0 takes the likeliest token; otherwise a token is drawn from the `top_k` likeliest (0: all) that
    make up `top_p` of the probability. A row that has drawn `stop_token` is filled with it, and the work ends when
    all rows have. Draws depend on `seed` alone, not on the global random state. Ids from `used_vocab` on only pad
    the embedding and are never chosen.

    The model sees the last `max_seq_len` tokens. Each step computes the whole window again, without a cache of
    keys and values: simple, and quadratic in N, which is fine for samples of a few hundred tokens.

    Raises: ValueError for an empty prompt or for settings that no distribution can satisfy.
    """
    _check(ids, max_new_tokens, temperature, top_k, top_p)
    generator = torch.Generator().manual_seed(seed)
    device = next(model.parameters()).device
    ids = ids.cpu()
    stopped = torch.zeros(len(ids), dtype=torch.bool)
    for _ in range(max_new_tokens):
        window = ids[:, -model.config.max_seq_len :].to(device)
        logits_BV = model.logits(model.hidden(window)[:, -1])[:, :used_vocab].float().cpu()
        chosen = choose_token(logits_BV, temperature, top_k, top_p, generator)
        if stop_token is not None:
            chosen = chosen.masked_fill(stopped, stop_token)
            stopped |= chosen == stop_token
        ids = torch.cat((ids, chosen[:, None]), dim=1)
        if bool(stopped.all()):
            break
    return ids


def choose_token(
    logits_BV: Tensor, temperature: float, top_k: int, top_p: float, generator: torch.Generator
) -> Tensor:
    """Return one token (B) per row of logits, all on the CPU: the same draws whatever computed the logits."""
    if temperature == 0:
        return logits_BV.argmax(dim=-1)
    scores, tokens = (logits_BV / temperature).sort(dim=-1, descending=True, stable=True)
    if top_k:
        scores, tokens = scores[:, :top_k], tokens[:, :top_k]
    probability = scores.softmax(dim=-1)
    # A token stays as long as those before it do not yet reach top_p; the first one always does.
    before = probability.cumsum(dim=-1) - probability
    probability = probability.masked_fill(before >= top_p, 0.0)
    drawn = torch.multinomial(probability, 1, generator=generator)
    return tokens.gather(1, drawn).squeeze(1)


def _check(ids: Tensor, max_new_tokens: int, temperature: float, top_k: int, top_p: float) -> None:
    if ids.dim() != 2 or ids.shape[0] == 0 or ids.shape[1] == 0:
        raise ValueError(
            f"a prompt must have the shape (sequences, tokens) with a token or more, found {tuple(ids.shape)}; "
            f"begin an empty text with the end-of-text token"
        )
    if max_new_tokens < 0 or temperature < 0 or top_k < 0 or not 0 < top_p <= 1:
        raise ValueError(
            f"max_new_tokens, temperature and top_k must not be negative and top_p must lie in (0, 1], found "
            f"{max_new_tokens}, {temperature}, {top_k} and {top_p}; temperature 0 is greedy, top_k 0 keeps all"
        )
